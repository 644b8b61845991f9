"""A client of the server for its benchmark: as little as HTTP and server-sent events allow.

What it costs itself is part of what it measures, so it parses no more than it must.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_DATA, _ERROR, _DONE = b"data: {", b'data: {"error":', b"data: [DONE]"


@dataclass
class Told:
    """Seconds of answers: `first` from asking to the first token, `rest` from there to the last; of
    all."""

    first: list[float] = field(default_factory=list)
    rest: list[float] = field(default_factory=list)
    seconds: float = 0.0


class Connection:
    """A connection that stays open from one request to the next."""

    def __init__(self, host: str, port: int) -> None:
        self._place = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(*self._place)

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            await self._writer.wait_closed()

    async def ask(self, body: dict[str, Any]) -> tuple[float, float]:
        """Ask for a streamed completion; return the seconds to its first token and from there to
        its last.

        RuntimeError for any other answer than a whole stream.
        """
        assert self._reader is not None and self._writer is not None
        content = json.dumps(body).encode()
        head = (
            "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length:"
            f" {len(content)}\r\n"
        )
        begun = time.perf_counter()
        self._writer.write(head.encode() + b"content-type: application/json\r\n\r\n" + content)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the server refused: {answer.decode('latin-1').splitlines()[0]}")
        first, last, piece = 0.0, 0.0, b""
        while size := int(await self._reader.readline(), 16):
            piece = await self._reader.readexactly(size + 2)
            if piece.startswith(_DATA):
                last = time.perf_counter()
                first = first or last
            if piece.startswith(_ERROR):
                raise RuntimeError(f"the server broke off: {piece.decode('utf-8', 'replace')}")
        await self._reader.readexactly(2)
        if _DONE not in piece:
            raise RuntimeError("the server's stream ended without its end")
        return first - begun, last - first


async def ask_all(
    connections: Sequence[Connection], texts: Sequence[str], tokens: int, bias: dict[str, float]
) -> Told:
    """Ask for the continuations of all texts, each connection for one after another."""
    told = Told()
    waiting = list(reversed(texts))

    async def go(connection: Connection) -> None:
        while waiting:
            body = {"prompt": waiting.pop(), "max_tokens": tokens, "seed": 1, "logit_bias": bias}
            first, rest = await connection.ask(body | {"stream": True})
            told.first.append(first)
            told.rest.append(rest)

    begun = time.perf_counter()
    await asyncio.gather(*(go(connection) for connection in connections))
    told.seconds = time.perf_counter() - begun
    return told
