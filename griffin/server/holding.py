"""Who holds a session: one request of this server at a time, in the order in which they came."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from griffin.server import errors
from griffin.server.errors import ApiError
from griffin.server.http.body import Gone
from griffin.server.http.exchange import Exchange

Key = tuple[str, str]  # namespace and name


@dataclass
class _Held:
    """The locks of one session. users: who has, or waits for, one of them."""

    long: asyncio.Lock = field(default_factory=asyncio.Lock)  # while an answer is made
    short: threading.Lock = field(default_factory=threading.Lock)  # while the store is asked
    users: int = 0


class Holding:
    """The sessions that requests of this server hold now.

    A request that names a session holds it while it is answered (`hold`), and others wait for it.
    A hint never does: it has the session for the moments in which its state is read and its turn
    is kept (`moment`). Other processes are kept out by the store's leases.
    """

    def __init__(self) -> None:
        self._held: dict[Key, _Held] = {}
        self._lock = threading.Lock()

    @asynccontextmanager
    async def hold(self, exchange: Exchange, key: Key, seconds: float) -> AsyncIterator[None]:
        """Have a session while a request is answered; those that came before go first.

        Raises ApiError if its turn does not come in so many seconds, Gone if the client leaves.
        """
        with self._use(key) as held:
            turn = asyncio.ensure_future(held.long.acquire())
            exchange.on_gone(turn.cancel)
            try:
                await asyncio.wait({turn}, timeout=seconds)
            except asyncio.CancelledError:  # its turn may have come at the same moment
                if not turn.cancel() and not turn.cancelled():
                    held.long.release()
                raise
            if turn.cancel() or turn.cancelled():
                if exchange.gone:
                    raise Gone
                raise ApiError(
                    errors.TIMEOUT,
                    f"the session {key[1]!r} was answering others for the request's whole time",
                    retry_after=2.0,
                )
            try:
                yield
            finally:
                held.long.release()

    def is_held(self, key: Key) -> bool:
        """Return whether a request holds a session."""
        with self._lock:
            held = self._held.get(key)
        return held is not None and held.long.locked()

    @contextmanager
    def moment(self, key: Key) -> Iterator[None]:
        """Have a session's files for a moment, in a thread that may wait for another's moment."""
        with self._use(key) as held, held.short:
            yield

    @contextmanager
    def _use(self, key: Key) -> Iterator[_Held]:
        with self._lock:
            held = self._held.setdefault(key, _Held())
            held.users += 1
        try:
            yield held
        finally:
            with self._lock:
                held.users -= 1
                if not held.users:
                    del self._held[key]
