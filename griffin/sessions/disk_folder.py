"""A folder of mode 0700 on a disk, for any number of processes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from griffin.sessions import lease
from griffin.sessions.disk import make_private_file, private_folder, sync_folder, write_durably
from griffin.sessions.errors import StateTorn
from griffin.sessions.filesystem import check_place, mount_of
from griffin.sessions.folder import Folder
from griffin.sessions.index import Index, Journal
from griffin.sessions.lease import Lease
from griffin.sessions.tensor_file import TensorFile


class DiskFolder(Folder):
    """Sessions on a disk. Arguments and errors are those of Store.

    path:         the folder.
    blobs, locks: folders in it, of one file for each state and one lock file for each session.
    """

    durable = True

    def __init__(self, path: Path, *, network: bool = False) -> None:
        private_folder(path)
        self.path, self.blobs, self.locks = path, path / "blobs", path / "locks"
        for inner in (self.blobs, self.locks):
            inner.mkdir(mode=0o700, exist_ok=True)
        self._writers = path / "writers.lock"
        with lease.locked(path / "opening.lock"):
            super().__init__(_open_index(path, self.blobs, network))

    def __str__(self) -> str:
        return str(self.path)

    def write(self, name: str, chunks: Sequence[bytes | memoryview]) -> None:
        write_durably(self.blobs / name, chunks)

    def read(self, name: str) -> TensorFile:
        return TensorFile(self.blobs / name)

    def read_bytes(self, name: str) -> bytes:
        try:
            return (self.blobs / name).read_bytes()
        except FileNotFoundError:
            raise StateTorn(f"{self.blobs / name} is missing") from None

    def discard(self, name: str) -> None:
        (self.blobs / name).unlink(missing_ok=True)

    def flush(self) -> None:
        sync_folder(self.blobs)

    def blobs_there(self) -> list[str]:
        return _names(self.blobs)

    @contextmanager
    def carrying(self) -> Iterator[Path]:
        # Where `recover` looks, if this process is killed.
        path = self.blobs / secrets.token_hex(16)
        with self.writers():
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)

    def lease(self, key: str, what: str) -> Lease:
        return lease.take(self.locks / key, what)

    def lease_if_free(self, key: str) -> AbstractContextManager[bool]:
        return lease.locked_if_free(self.locks / key)

    def leased(self, key: str) -> bool:
        return lease.in_use(self.locks / key)

    def discard_lock(self, key: str) -> None:
        (self.locks / key).unlink(missing_ok=True)

    def locks_there(self) -> list[str]:
        return _names(self.locks)

    def writers(self) -> AbstractContextManager[None]:
        return lease.locked(self._writers, shared=True)

    def no_writers(self) -> AbstractContextManager[bool]:
        return lease.locked_if_free(self._writers)


def _names(folder: Path) -> list[str]:
    # What NFS calls a file that was removed while somebody has it open; it goes with its reader.
    return [path.name for path in folder.iterdir() if not path.name.startswith(".nfs")]


def _open_index(folder: Path, blobs: Path, network: bool) -> Index:
    """Open a folder's index, with the journal that it is to have; the caller holds the folder.

    Raises ValueError if no such journal holds there, StateTorn if the index is missing beside its
    blobs; else as Index.
    """
    path = folder / "index.sqlite"
    if (not path.exists() or not path.stat().st_size) and any(blobs.iterdir()):
        raise StateTorn(f"{path} is missing, and {blobs} holds states; restore it from a copy")
    note = folder / "network"  # whoever opens the folder later keeps to what it says
    journal: Journal = "DELETE" if network or note.exists() else "WAL"
    check_place(folder, journal, mount_of(folder))
    make_private_file(path)
    index = Index(path, journal)
    # Only now: somebody might have had it open with the other journal.
    if journal == "DELETE" and not note.exists():
        said = b"Several machines may share this folder: its index keeps a rollback journal.\n"
        try:
            write_durably(note, [said])
        except BaseException:
            index.close()
            raise
    return index
