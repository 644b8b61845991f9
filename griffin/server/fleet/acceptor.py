"""Sockets that several processes accept from: a connection goes to who has least to do.

One process that speaks TLS accepts so, too, for its handshakes are counted.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from griffin.server.http.crowd import Crowd

log = logging.getLogger("griffin.server")

_STEP, _MOST = 0.0005, 0.005  # seconds that others get first, for each request here, and at most
_NEW = 0.02  # seconds that a connection counts as a request, until its request is seen
_LATER = 1.0  # seconds until the next try when the system has no room
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Accept connections, in the place of an asyncio server.

    make: returns the protocol of a connection.
    load: returns how many requests are under way; None if no other process accepts.
    tls:  arguments of the loop for connections that speak TLS. crowd: counts them during their
          handshake, and may end that.

    asyncio takes all waiting connections, whatever there is to do, so the first process to wake
    gets a whole burst. This takes one at a time, at once if it is idle; the more requests it has,
    the longer it leaves a connection to the others.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        make: Callable[[], asyncio.Protocol],
        load: Callable[[], int] | None,
        backlog: int,
        tls: Mapping[str, Any] | None = None,
        crowd: Crowd | None = None,
    ) -> None:
        self.sockets = list(sockets)
        self._make = make
        self._load = load
        self._tls = tls or {}
        self._crowd = crowd if tls else None
        self._new = 0
        self._loop = asyncio.get_running_loop()
        self._timers: dict[socket.socket, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        for listener in self.sockets:
            listener.setblocking(False)
            listener.listen(backlog)
            self._loop.add_reader(listener, self._come, listener)

    def close(self) -> None:
        """Accept no more. The others go on: the sockets are closed here only."""
        for listener in self.sockets:
            self._loop.remove_reader(listener)
            listener.close()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for task in self._tasks if self._tls else ():
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait for connections that are being taken."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _come(self, listener: socket.socket) -> None:
        """Somebody waits."""
        load = 0 if self._load is None else self._load() + self._new
        if not load:
            self._take(listener)
        else:
            self._later(listener, min(_STEP * load, _MOST))

    def _later(self, listener: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(listener)
        self._timers[listener] = self._loop.call_later(seconds, self._again, listener)

    def _again(self, listener: socket.socket) -> None:
        del self._timers[listener]
        self._loop.add_reader(listener, self._come, listener)
        self._take(listener)

    def _take(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process was quicker, or the client did not wait
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            log.error("no connection could be taken: %s", error.strerror)
            self._later(listener, _LATER)
            return
        connection.setblocking(False)
        self._new += 1
        self._loop.call_later(_NEW, self._grow_old)
        task = self._loop.create_task(self._attach(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attach(self, connection: socket.socket) -> None:
        shaking = _Shaking(asyncio.current_task())
        if self._crowd is not None:
            self._crowd.come(shaking)
        try:
            await self._loop.connect_accepted_socket(self._make, connection, **self._tls)
        except OSError:  # the client went away
            connection.close()
        finally:
            if self._crowd is not None:
                self._crowd.go(shaking)

    def _grow_old(self) -> None:
        self._new -= 1


class _Shaking:
    """A connection whose handshake lasts, by the task that waits for it: a guest without a key."""

    idle = True

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self._task = task

    def leave(self) -> None:
        if self._task is not None:
            self._task.cancel()
