"""A folder that is nowhere: sessions that live as long as the program."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from griffin.sessions.errors import SessionBusy, StateTorn
from griffin.sessions.folder import Folder
from griffin.sessions.index import Index
from griffin.sessions.lease import Lease
from griffin.sessions.tensor_file import TensorFile

_PATIENCE = 0.02  # seconds: who looks whether a lease is free holds it for a moment


class MemoryFolder(Folder):
    """Sessions in memory, for any thread of this process; nothing touches the disk."""

    durable = False

    def __init__(self) -> None:
        super().__init__(Index.in_memory())
        self._blobs: dict[str, bytes] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._gate = threading.RLock()
        self._writing = 0
        weakref.finalize(self, self.index.close)

    def __str__(self) -> str:
        return "memory"

    def write(self, name: str, chunks: Sequence[bytes | memoryview]) -> None:
        self._blobs[name] = b"".join(chunks)

    def read(self, name: str) -> TensorFile:
        return TensorFile(Path("memory") / name, self.read_bytes(name))

    def read_bytes(self, name: str) -> bytes:
        try:
            return self._blobs[name]
        except KeyError:
            raise StateTorn(f"{name} is missing in memory") from None

    def discard(self, name: str) -> None:
        self._blobs.pop(name, None)

    def flush(self) -> None:
        pass

    def blobs_there(self) -> list[str]:
        return list(self._blobs)

    @contextmanager
    def carrying(self) -> Iterator[Path]:
        raise ValueError(
            "a store in memory has no place for files; use Session.fork(namespace=...), or a folder"
        )
        yield  # makes it a generator, which a context manager is made of

    def lease(self, key: str, what: str) -> Lease:
        lock = self._locks.setdefault(key, threading.Lock())
        if not lock.acquire(timeout=_PATIENCE):
            raise SessionBusy(
                f"{what} is in use by this process; close it there, or go on from a copy of it"
            )
        return Lease(lock.release)

    @contextmanager
    def lease_if_free(self, key: str) -> Iterator[bool]:
        lock = self._locks.setdefault(key, threading.Lock())
        free = lock.acquire(blocking=False)
        try:
            yield free
        finally:
            if free:
                lock.release()

    def leased(self, key: str) -> bool:
        lock = self._locks.get(key)
        return lock is not None and lock.locked()

    def discard_lock(self, key: str) -> None:
        self._locks.pop(key, None)

    def locks_there(self) -> list[str]:
        return list(self._locks)

    @contextmanager
    def writers(self) -> Iterator[None]:
        with self._gate:
            self._writing += 1
        try:
            yield
        finally:
            with self._gate:
                self._writing -= 1

    @contextmanager
    def no_writers(self) -> Iterator[bool]:
        with self._gate:
            yield not self._writing
