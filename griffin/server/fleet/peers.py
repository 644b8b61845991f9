"""What replicas tell each other, so that whichever is asked can speak for all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from griffin.server.fleet.replica import ReplicaConfig

log = logging.getLogger("griffin.server")

_PATIENCE = 2.0  # seconds for another replica to answer
_MOST = 16 << 20  # bytes of an answer


class Peers:
    """The replicas at one address, each on a socket that only its user can reach.

    tell: what this replica answers, by the question.
    """

    def __init__(self, config: ReplicaConfig, tell: dict[str, Callable[[], bytes]]) -> None:
        self.config = config
        self._tell = tell
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Begin to answer."""
        path = self.config.socket_of(self.config.number)
        path.unlink(missing_ok=True)  # of one that was killed
        self._server = await asyncio.start_unix_server(self._answer, path)

    async def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.close()
            self.config.socket_of(self.config.number).unlink(missing_ok=True)

    async def ask(self, question: str) -> dict[int, bytes | None]:
        """Return what each replica answers, by its number; None of one that does not."""
        others = [number for number in range(1, self.config.of + 1) if number != self.config.number]
        said = await asyncio.gather(*(self._ask(number, question) for number in others))
        found = dict(zip(others, said, strict=True)) | {self.config.number: self._tell[question]()}
        return dict(sorted(found.items()))

    async def _ask(self, number: int, question: str) -> bytes | None:
        try:
            async with asyncio.timeout(_PATIENCE):
                reader, writer = await asyncio.open_unix_connection(self.config.socket_of(number))
                try:
                    writer.write(question.encode() + b"\n")
                    answer = b""
                    while (piece := await reader.read(1 << 16)) and len(answer) < _MOST:
                        answer += piece
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            # It is starting, or ending, or too busy: it is told apart as silent.
            return None
        return answer or None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                question = (await reader.readline()).decode().strip()
                if (tell := self._tell.get(question)) is not None:
                    writer.write(tell())
                    with suppress(OSError):  # who asked did not wait
                        await writer.drain()
        except TimeoutError:
            log.warning("another replica asked, and then said nothing")
        finally:
            writer.close()
