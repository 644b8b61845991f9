"""A disk that is full, or read-only, from a chosen moment on: what Python opens, makes or renames
in a folder fails then, and goes through again when the block has ended."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_ALWAYS = ("os.mkdir", "os.rename", "os.truncate")
_READ_ONLY = ("os.remove", "os.rmdir")


@dataclass
class FaultyDisk:
    """What happens to a folder. after: so many changes go through, None: all; seen: were asked for.

    number: of the error, as in `errno`. removing: whether files cannot be removed either.
    """

    folder: Path
    number: int = 0
    after: int | None = None
    removing: bool = False
    seen: int = 0

    def look(self, event: str, given: tuple[Any, ...]) -> None:
        """Take an audit event; OSError if it is a change that fails."""
        if not self._changes(event, given):
            return
        self.seen += 1
        if self.after is not None and self.seen > self.after:
            raise OSError(self.number, os.strerror(self.number), str(given[0]))

    def _changes(self, event: str, given: tuple[Any, ...]) -> bool:
        if event == "open":
            path, mode, flags = given
            writes = any(c in mode for c in "wax+") if mode else bool(flags & _WRITING)
        else:
            path = given[0] if given else None
            writes = event in _ALWAYS or (self.removing and event in _READ_ONLY)
        if not writes or not isinstance(path, str | bytes | os.PathLike):
            return False
        if event in _READ_ONLY and not os.path.lexists(path):
            return False  # nothing is there, and that is what a read-only disk says too
        return os.fsdecode(path).startswith(f"{self.folder}{os.sep}")


_now: list[FaultyDisk] = []
_hooked: list[bool] = []


def _hook(event: str, given: tuple[Any, ...]) -> None:
    for disk in _now:
        disk.look(event, given)


@contextlib.contextmanager
def faulty(disk: FaultyDisk) -> Iterator[FaultyDisk]:
    """Have a disk behave so within the block."""
    if not _hooked:  # a hook cannot be taken away
        sys.addaudithook(_hook)
        _hooked.append(True)
    _now.append(disk)
    try:
        yield disk
    finally:
        _now.remove(disk)


@contextlib.contextmanager
def short_files(size: int) -> Iterator[None]:
    """Have every file end at a size within the block: what is beyond it is not written, and is an
    OSError, EFBIG."""
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, room[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, room)
