"""A lease on a session: one holder at a time, let go by the kernel when its process dies, however it dies.

It is an flock on a file of its own. A lease noted in the index (a process id, a time until when) outlives a
killed owner or expires under a slow one; this one does neither, and needs no renewing.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from griffin.sessions.errors import SessionBusy


class Lease:
    """An exclusive hold of a lock file, until `release` or the end of this process."""

    def __init__(self, path: Path, what: str) -> None:
        """Take it at once or raise SessionBusy, which says who has `what`."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 500, 0).decode(errors="replace") or "another process"
            os.close(handle)
            raise SessionBusy(f"{what} is in use by {holder}; close it there, or fork it") from None
        self._handle: int | None = handle
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode(), 0)

    @property
    def held(self) -> bool:
        return self._handle is not None

    def release(self) -> None:
        """Let go; a second time does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock file for a block, alone or with others, waiting for it as long as it takes."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold a lock file alone for a block if nobody has it now; the value says whether."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
