"""A lease on a session: one holder at a time, released by the kernel when its process dies.

It is an flock on a file of its own. A lease noted in the index (a process id, a time until when)
outlives a killed owner or expires under a slow one; this one does neither, and needs no renewing.
On NFS it is the server's: a machine that dies, or is cut off, loses it when the server gives it up
(90 seconds, usually).
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from griffin.sessions.disk import no_room, open_plain
from griffin.sessions.errors import SessionBusy

# Who looks whether a lease is free (`in_use`, a sweep) holds it for a moment, and forking takes
# milliseconds; these are not worth refusing anybody.
_TRIES, _PAUSE = 10, 0.002


class Lease:
    """An exclusive hold of something, until `release` or the end of this process."""

    def __init__(self, let_go: Callable[[], None]) -> None:
        self._let_go: Callable[[], None] | None = let_go

    @property
    def held(self) -> bool:
        return self._let_go is not None

    def release(self) -> None:
        """Let go; a second time does nothing."""
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()


def take(path: Path, what: str) -> Lease:
    """Hold a lock file, or raise SessionBusy after some milliseconds, which says who has `what`."""
    handle = open_plain(path, os.O_RDWR | os.O_CREAT)
    try:
        if not _taken(handle):
            note = os.pread(handle, 500, 0).decode(errors="replace")
            holder = "".join(filter(str.isprintable, note)) or "another process"
            raise SessionBusy(
                f"{what} is in use by {holder}; close it there, or go on from a copy of it"
            )
        line = (
            f"process {os.getpid()} on {socket.gethostname()} since"
            f" {time.strftime('%Y-%m-%d %H:%M:%S')}"
        )
        try:
            os.pwrite(handle, line.encode(), 0)
            os.ftruncate(handle, len(line.encode()))
        except OSError as error:
            if (full := no_room(path, error)) is not None:
                raise full from error
            raise
    except BaseException:
        os.close(handle)
        raise
    return Lease(partial(_let_go, handle))


def in_use(path: Path) -> bool:
    """Return whether somebody has the lease of a lock file."""
    try:
        handle = open_plain(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        # Given back in order, which most are: nobody is disturbed by looking.
        if not os.fstat(handle).st_size:
            return False
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock file for a block, alone or with others, waiting for it as long as it takes."""
    handle = open_plain(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold a lock file alone for a block if nobody has it now; the value says whether."""
    handle = open_plain(path, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _let_go(handle: int) -> None:
    with suppress(OSError):  # a note for people; where it cannot be removed it is only out of date
        os.ftruncate(handle, 0)
    os.close(handle)


def _taken(handle: int) -> bool:
    for tries in range(_TRIES):
        if tries:
            time.sleep(_PAUSE)
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False
