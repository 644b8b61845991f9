"""HTTP as the clients of a soak speak it: what breaks off is an exception, what must not happen
another."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx2


class Broken(Exception):
    """The connection was torn: the server was killed."""


@dataclass
class Heard:
    """What a client was told of the choices of an answer.

    texts, logprobs, finishes: of each. whole: its end came too.
    """

    texts: list[str]
    logprobs: list[list[float]] = field(default_factory=list)
    finishes: list[str | None] = field(default_factory=list)
    whole: bool = False

    @classmethod
    def nothing(cls, n: int) -> Heard:
        return cls([""] * n, [[] for _ in range(n)], [None] * n)

    def add(self, choice: dict[str, Any]) -> None:
        """Add a choice of a chunk, or of a whole answer."""
        index = choice["index"]
        part = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
        self.texts[index] += part.get("content") or ""
        tokens = (choice.get("logprobs") or {}).get("content") or []
        self.logprobs[index] += [token["logprob"] for token in tokens]
        self.finishes[index] = choice.get("finish_reason") or self.finishes[index]


class Wire:
    """Connections to one server. tries: how often it was sent away (409, 429) and came again."""

    def __init__(self, url: str) -> None:
        limits = httpx2.Limits(
            max_connections=None, max_keepalive_connections=32, keepalive_expiry=2
        )
        self.http = httpx2.AsyncClient(base_url=url, timeout=120, limits=limits)
        self.tries: Counter[int] = Counter()

    async def close(self) -> None:
        await self.http.aclose()

    async def ask(self, method: str, path: str, body: Any = None, missing: bool = False) -> Any:
        """Ask for something that is answered at once. missing: a 404 gives None."""
        while True:
            try:
                answer = await self.http.request(method, path, json=body)
            except httpx2.TransportError as error:
                raise Broken from error
            if missing and answer.status_code == 404:
                return None
            if await self._again(answer.status_code):
                continue
            assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"
            return answer.json()

    async def chat(self, body: dict[str, Any], n: int = 1, leave: int | None = None) -> Heard:
        """Ask for an answer, streamed if the body says so. leave: go away after so many chunks."""
        while True:
            heard = Heard.nothing(n)
            try:
                async with self.http.stream("POST", "/v1/chat/completions", json=body) as answer:
                    if not await self._again(answer.status_code):
                        await self._hear(answer, heard, leave)
                        return heard
            except httpx2.TransportError as error:
                raise Broken(heard) from error

    async def _hear(self, answer: httpx2.Response, heard: Heard, leave: int | None) -> None:
        if answer.status_code != 200 or "event-stream" not in answer.headers["content-type"]:
            whole = json.loads(await answer.aread())
            assert answer.status_code == 200, f"{answer.status_code} {whole}"
            for choice in whole["choices"]:
                heard.add(choice)
            heard.whole = True
            return
        count = 0
        async for line in answer.aiter_lines():
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                heard.whole = True
                return
            chunk = json.loads(line.removeprefix("data: "))
            assert "error" not in chunk, chunk
            for choice in chunk["choices"]:
                heard.add(choice)
            count += 1
            if count == leave:
                return
        raise httpx2.ReadError("the stream ended without its end")

    async def _again(self, status: int) -> bool:
        if status not in (409, 429):
            return False
        self.tries[status] += 1
        await asyncio.sleep(0.05)
        return True
