"""One request and its answer on the wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from griffin.server import protocol as p
from griffin.server.errors import INVALID, ApiError
from griffin.server.http import sse
from griffin.server.http.asgi import Gone, Receive, Scope, Send
from griffin.server.http.body import Budget, read_body
from griffin.server.limits import Limits

_MOST_VALUES = 32  # of a query
_PIECE = 1 << 18  # bytes that are sent at once


@dataclass(frozen=True)
class Reply:
    """An answer that is not streamed."""

    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    media: str = "application/json"


class Exchange:
    """A request, from its headers to the last byte of its answer.

    headers:    by lower-case names.
    query:      the query's values.
    params:     the path's, by the operation's names.
    namespace:  of who asks.
    id:         in x-request-id of the answer, and in the log.
    extra:      headers that every answer gets.
    model:      the name of the model that answers, "" where none does.
    status:     of the answer, 0 before it began.
    streaming:  it began as a stream of events.
    tokens:     (prompt, cached, generated) for the log.
    weight:     bytes of its body, of its answer and of what it shares.
    gone:       the client went away.
    read_at:    when its body was there (before: when it came itself), by time.perf_counter.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, send_seconds: float) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.headers: dict[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        self.id = p.request_id(self.headers.get("x-request-id"))
        self.namespace = ""
        self.params: dict[str, str] = {}
        self.extra: dict[str, str] = {"x-request-id": self.id}
        self.model = ""
        self.status = 0
        self.streaming = False
        self.tokens: tuple[int, int, int] | None = None
        self.weight = 0
        self.gone = False
        self.read_at = time.perf_counter()
        self._receive = receive
        self._send = send
        self._send_seconds = send_seconds
        self._on_gone: list[Callable[[], object]] = []
        self._watcher: asyncio.Task[None] | None = None
        self._budget: Budget | None = None
        self._held = 0
        self._shares: list[tuple[Hashable, int]] = []

    @property
    def query(self) -> dict[str, str]:
        """The query's values, the last of a name. ApiError for more than anybody needs."""
        text = self.scope.get("query_string", b"").decode("latin-1")
        if text.count("&") >= _MOST_VALUES:
            raise ApiError(INVALID, f"the query has more than {_MOST_VALUES} values; send fewer")
        return dict(parse_qsl(text, keep_blank_values=True))

    @property
    def holder(self) -> str:
        """Who has what this request holds: its key, or the address it came from; "" for neither."""
        client = self.scope.get("client")
        return self.namespace or (f"at {client[0]}" if client else "")

    async def body(
        self, limits: Limits, budget: Budget, seconds: float, media: str = "application/json"
    ) -> bytes:
        """Read the body, and from then on watch for the client going away.

        Its bytes are the budget's until `close`: what is made of them lives as long.
        """

        def take(count: int) -> None:
            budget.take(count, self.holder)
            self._held += count
            self.weight += count

        self._budget = budget
        body = await read_body(self._receive, self.headers, limits, take, seconds, media)
        self.read_at = time.perf_counter()
        self._watcher = asyncio.create_task(self._watch())
        return body

    def share(self, thing: Hashable, count: int) -> None:
        """Have bytes that other requests of the same holder may have, too, until `close`.

        Raises ApiError where there is no room for them beside what others hold.
        """
        if self._budget is not None:
            self._budget.share(thing, count, self.holder)
            self._shares.append((thing, count))
            self.weight += count

    def on_gone(self, call: Callable[[], object]) -> None:
        """Have something called, at once, when the client goes away; now if it has."""
        if self.gone:
            call()
        else:
            self._on_gone.append(call)

    def check_here(self) -> None:
        """Raise Gone if the client went away."""
        if self.gone:
            raise Gone

    async def answer(self, reply: Reply) -> None:
        """Send a whole answer."""
        headers = {
            "content-type": reply.media,
            "content-length": str(len(reply.body)),
            "x-content-type-options": "nosniff",
            "cache-control": "no-store",
        }
        await self._begin(reply.status, headers | self.extra | reply.headers)
        *first, last = _pieces(reply.body)
        for piece in first:
            await self._put({"type": "http.response.body", "body": piece, "more_body": True})
        await self._put({"type": "http.response.body", "body": last})

    async def answer_plain(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send an answer whose headers are settled already."""
        await self._begin(status, {**headers, "x-request-id": self.id})
        await self._put({"type": "http.response.body", "body": body})

    async def begin_stream(self, headers: dict[str, str]) -> None:
        """Send the headers of a stream of events."""
        self.streaming = True
        await self._begin(
            200, sse.HEADERS | {"x-content-type-options": "nosniff"} | self.extra | headers
        )

    async def write(self, data: bytes) -> None:
        """Send some of the stream; Gone if the client does not take it in time."""
        for piece in _pieces(data):
            await self._put({"type": "http.response.body", "body": piece, "more_body": True})

    async def end_stream(self) -> None:
        """End the stream."""
        await self._put({"type": "http.response.body", "body": b""})

    def close(self) -> None:
        """Stop watching, and give back what is held.

        Nothing leads from here to the request's objects any more, nor in a circle: they go at once.
        """
        self._on_gone.clear()
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
        if self._budget is not None:
            self._budget.give(self._held, self.holder)
            self._held = 0
            while self._shares:
                self._budget.unshare(*self._shares.pop(), self.holder)

    @property
    def _last(self) -> bool:
        """Whether the connection ends with the answer, for where the next request begins is unsure.

        So it is with two lengths (RFC 9112, 6.1), and if a body was announced that nobody asked to
        be sent (Expect: 100-continue).
        """
        two = "content-length" in self.headers and "transfer-encoding" in self.headers
        return two or ("expect" in self.headers and self._watcher is None)

    async def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        if self._last:
            headers = {**headers, "connection": "close"}
        pairs = [
            (name.encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in headers.items()
        ]
        await self._put({"type": "http.response.start", "status": status, "headers": pairs})

    async def _put(self, message: dict[str, Any]) -> None:
        self.check_here()
        self.weight += len(message.get("body", b""))
        try:
            async with asyncio.timeout(self._send_seconds):
                await self._send(message)
        except TimeoutError:  # it reads nothing: what lies in its buffers goes with the connection
            abort = self.scope.get("state", {}).get("abort")
            if abort is not None:
                abort()
            self._left()
            raise Gone from None

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left()

    def _left(self) -> None:
        self.gone = True
        calls, self._on_gone = self._on_gone, []
        for call in calls:
            call()


def _pieces(data: bytes) -> list[bytes]:
    """Cut what is sent: others get their turn between two pieces, and a buffer holds only one."""
    if len(data) <= _PIECE:
        return [data]
    return [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]
