"""Several processes that serve at one address: started, watched, restarted and ended by this one.

It holds no model and imports no torch: a replica is the same command started anew, never a fork of
a process that has threads. Each has one end of a line to it (`replica.Link`) and dies with it.
"""

from __future__ import annotations

import logging
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

from griffin.server.fleet.replica import ALIVE, READY, ReplicaConfig
from griffin.server.settings import Settings

log = logging.getLogger("griffin.server")

_SOON, _LATEST = 0.5, 60.0  # seconds until a replica that died is started again: doubled each time
_STEADY = 60.0  # seconds of life after which a death is not taken for one of a row
_SILENT = 60.0  # seconds without a word after which a replica is killed: its event loop hangs
_STRIDE = 5.0  # seconds between two looks that count, at most: more, and the machine slept
_GRACE = 10.0  # seconds beyond the drain after which a replica is killed
_TERM, _INT = signal.SIGTERM, signal.SIGINT


class Replica:
    """One of the processes.

    ready: it serves. beats: it says every second that it lives. silent: seconds since it did.
    again: when to start it next (monotonic clock).
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.link: socket.socket | None = None
        self.ready = False
        self.beats = False
        self.silent = 0.0
        self.again: float | None = None
        self.wait = _SOON
        self.begun = 0.0

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """Serve with `count` replicas until SIGTERM or SIGINT.

    command:       how a replica is started, given its config: the program and its arguments.
    listeners:     bound sockets, which all replicas accept from.
    drain_seconds: what replicas take to end what is under way.
    announce:      called once, when the first replica serves.

    The first replica starts alone: what keeps it from serving would keep all of them, and is said
    once. When it serves, the others start. One that dies is started again, soon at first, then
    after longer and longer. Signals are passed on; a second SIGINT does not wait for what is under
    way.
    """

    def __init__(
        self,
        count: int,
        command: Callable[[ReplicaConfig], Sequence[str]],
        listeners: Sequence[socket.socket],
        *,
        drain_seconds: float = Settings.drain_seconds,
        announce: Callable[[], object] | None = None,
    ) -> None:
        self.replicas = [Replica(number) for number in range(1, count + 1)]
        self._command = command
        self._listeners = list(listeners)
        self._drain = drain_seconds
        self._announce = announce
        self._folder = ""
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._deadline: float | None = None  # of a shutdown; None while there is none
        self._was_ready = False
        self._looked = time.monotonic()

    def run(self) -> int:
        """Serve; return the exit code: 0 after a signal, the replica's if the first one failed."""
        self._folder = tempfile.mkdtemp(prefix="griffin-")  # of mode 0700
        waker, woken = socket.socketpair()
        for end in (waker, woken):
            end.setblocking(False)
        before = {sig: signal.signal(sig, self._note) for sig in (_TERM, _INT, signal.SIGCHLD)}
        wakeup = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        self._selector.register(woken, selectors.EVENT_READ)
        try:
            self._start(self.replicas[0], first=True)
            while True:
                for key, _ in self._selector.select(self._patience()):
                    if key.fileobj is woken:
                        with suppress(BlockingIOError):
                            woken.recv(4096)
                    else:
                        self._hear(key.data)
                self._obey()
                code = self._look()
                if code is not None:
                    return code
        finally:
            for replica in self.replicas:
                if replica.process is not None:
                    replica.process.kill()
                    replica.process.wait()
                self._part(replica)
            signal.set_wakeup_fd(wakeup)
            for sig, handler in before.items():
                signal.signal(sig, handler)
            self._close_listeners()
            for end in (waker, woken):
                end.close()
            self._selector.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _note(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGCHLD:
            self._signals.append(sig)

    def _obey(self) -> None:
        """Pass signals on, and begin to end."""
        while self._signals:
            sig = self._signals.pop(0)
            if self._deadline is None:
                self._deadline = time.monotonic() + self._drain + _GRACE
                self._close_listeners()  # as replicas do theirs: nobody is left waiting
            for replica in self.replicas:
                replica.again = None
                if replica.alive and replica.process is not None:
                    replica.process.send_signal(sig)

    def _look(self) -> int | None:
        """See who died and what is due; return the exit code when it is over."""
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, _STRIDE), now
        for replica in self.replicas:
            self._listen(replica, passed)
            if replica.process is not None and (code := replica.process.poll()) is not None:
                self._part(replica)
                replica.process = None
                if self._deadline is None:
                    if not self._was_ready:
                        return code if code > 0 else 1
                    how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
                    self._bury(replica, f"died ({how})", now)
            elif replica.again is not None and now >= replica.again and self._deadline is None:
                self._start(replica)
        if self._deadline is None:
            return None
        if not any(replica.alive for replica in self.replicas):
            return 0
        if now < self._deadline:
            return None
        log.error("replicas did not end in time and were killed")
        return 1

    def _listen(self, replica: Replica, seconds: float) -> None:
        """Kill a replica that has not said for long that it lives; `_look` sees it dead."""
        if replica.beats and replica.process is not None:
            replica.silent += seconds
            if replica.silent > _SILENT:
                log.error("replica %d hangs and is killed", replica.number)
                replica.silent = 0.0
                replica.process.kill()

    def _bury(self, replica: Replica, how: str, now: float) -> None:
        """Say what became of a replica, and when it comes back."""
        if now - replica.begun > _STEADY:
            replica.wait = _SOON
        log.error("replica %d %s; it is started again in %.1f s", replica.number, how, replica.wait)
        replica.again = now + replica.wait
        replica.wait = min(2 * replica.wait, _LATEST)

    def _start(self, replica: Replica, *, first: bool = False) -> None:
        """Start a process; without room for it now, try again later, unless it is the first."""
        replica.again, replica.begun = None, time.monotonic()
        try:
            self._spawn(replica, first)
        except OSError as error:
            if first:
                raise
            self._bury(replica, f"could not be started ({error.strerror})", replica.begun)

    def _spawn(self, replica: Replica, first: bool) -> None:
        ours, theirs = socket.socketpair()
        listeners = tuple(listener.fileno() for listener in self._listeners)
        config = ReplicaConfig(
            number=replica.number,
            of=len(self.replicas),
            first=first,
            listeners=listeners,
            link=theirs.fileno(),
            folder=self._folder,
        )
        with theirs:
            try:
                replica.process = subprocess.Popen(
                    self._command(config),
                    stdin=subprocess.DEVNULL,
                    pass_fds=(*listeners, theirs.fileno()),
                    start_new_session=True,  # a terminal's Ctrl-C comes once, through this process
                )
            except BaseException:
                ours.close()
                raise
        replica.link, replica.ready, replica.beats, replica.silent = ours, False, False, 0.0
        self._selector.register(ours, selectors.EVENT_READ, replica)

    def _hear(self, replica: Replica) -> None:
        """Take a word from a replica; its end is seen by `_look`."""
        assert replica.link is not None
        try:
            said = replica.link.recv(16)
        except ConnectionResetError:
            said = b""
        if not said:
            self._part(replica)
            return
        replica.silent, replica.beats = 0.0, replica.beats or ALIVE in said
        if READY in said and not replica.ready:
            replica.ready = True
            assert replica.process is not None
            log.info("replica %d of %d serves (process %d)", *self._who(replica))
            if not self._was_ready and self._deadline is None:  # once it ends, nobody is let in
                self._was_ready = True
                if self._announce is not None:
                    self._announce()
                for other in self.replicas[1:]:
                    other.again = time.monotonic()

    def _who(self, replica: Replica) -> tuple[int, int, int]:
        assert replica.process is not None
        return replica.number, len(self.replicas), replica.process.pid

    def _part(self, replica: Replica) -> None:
        if replica.link is not None:
            self._selector.unregister(replica.link)
            replica.link.close()
            replica.link, replica.ready, replica.beats = None, False, False

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()

    def _patience(self) -> float | None:
        """Return the seconds until something is due; None if only a replica or signal has news."""
        due = [replica.again for replica in self.replicas if replica.again is not None]
        if self._deadline is not None:
            due.append(self._deadline)
        if any(replica.beats for replica in self.replicas):
            due.append(time.monotonic() + _STRIDE)
        # A line that was let go of says nothing of a process that is about to end, but a signal
        # does.
        return max(0.0, min(due) - time.monotonic()) if due else None
