"""The official client, sync or async, asked in one way by the tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from openai import AsyncOpenAI, AsyncStream

from tests.support.live_server import NAME, Live

HI = [{"role": "user", "content": "Hi there"}]


class Caller:
    """An official client.

    client(lambda c: c.models.list()) gives what comes of a call, and client.all(...) everything a
    stream or a page holds. An async client runs on a loop of its own, which stands still between
    two calls.
    """

    def __init__(self, client: Any, runner: asyncio.Runner | None = None) -> None:
        self.client = client
        self.runner = runner

    def __call__(self, do: Callable[[Any], Any]) -> Any:
        made = do(self.client)
        if self.runner is None:
            return made

        async def wait() -> Any:
            return await made

        return self.runner.run(wait())

    def all(self, do: Callable[[Any], Any]) -> list[Any]:
        """Return all that comes of a stream; what it raises is raised."""
        return self.rest(self(do))

    def first(self, stream: Any) -> Any:
        """Return what a stream gives first."""
        if self.runner is None:
            return next(stream)
        return self.runner.run(anext(stream))

    def rest(self, stream: Any) -> list[Any]:
        """Return what is left of a stream."""
        if self.runner is None:
            return list(stream)

        async def gather() -> list[Any]:
            try:
                return [part async for part in stream]
            finally:  # one that broke off stays open otherwise
                if isinstance(stream, AsyncStream):
                    await stream.close()

        return self.runner.run(gather())

    def close(self, stream: Any) -> None:
        """Stop reading a stream."""
        if self.runner is None:
            stream.close()
        else:
            self.runner.run(stream.close())

    def chat(self, **fields: Any) -> Any:
        """Ask the toy for eight tokens, or what `fields` say."""
        asked = {"model": NAME, "messages": HI, "max_tokens": 8, "seed": 1} | fields
        return self(lambda c: c.chat.completions.create(**asked))

    def with_options(self, **options: Any) -> Caller:
        return Caller(self.client.with_options(**options), self.runner)


@contextmanager
def calling(kind: str, live: Live, key: str = "none", **options: Any) -> Iterator[Caller]:
    """Open a client for a block. kind: "sync" or "async"."""
    if kind == "sync":
        with live.openai(key, **options) as client:
            yield Caller(client)
        return
    url = f"{live.url}/v1"
    with asyncio.Runner() as runner:
        client = AsyncOpenAI(api_key=key, base_url=url, max_retries=0, timeout=30, **options)
        try:
            yield Caller(client, runner)
        finally:
            runner.run(client.close())


def text(chunks: list[Any], choice: int = 0) -> str:
    """Return the text that the chunks of a chat hold for one choice."""
    deltas = [c for chunk in chunks for c in chunk.choices if c.index == choice]
    return "".join(c.delta.content or "" for c in deltas)
