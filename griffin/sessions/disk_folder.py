"""A folder of mode 0700 on a disk, for any number of processes."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from griffin.sessions import lease
from griffin.sessions.disk import (
    check_plain,
    inner_folder,
    kind_of,
    make_private_file,
    open_plain,
    private_folder,
    sync_folder,
    write_durably,
)
from griffin.sessions.errors import StateTorn
from griffin.sessions.filesystem import check_place, mount_of
from griffin.sessions.folder import Folder
from griffin.sessions.index import Index, Journal
from griffin.sessions.lease import Lease
from griffin.sessions.stored import REMEDY
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
            inner_folder(inner)
        self._writers = path / "writers.lock"
        with lease.locked(path / "opening.lock"):
            super().__init__(_open_index(path, self.blobs, network))

    def __str__(self) -> str:
        return str(self.path)

    def write(self, name: str, chunks: Sequence[bytes | memoryview]) -> None:
        write_durably(self._blob(name), chunks)

    def read(self, name: str) -> TensorFile:
        return TensorFile(self._blob(name), link=False)

    def read_bytes(self, name: str) -> bytes:
        path = self._blob(name)
        try:
            handle = open_plain(path, os.O_RDONLY)
        except FileNotFoundError:
            raise StateTorn(f"{path} is missing") from None
        with os.fdopen(handle, "rb") as file:
            return file.read()

    def discard(self, name: str) -> None:
        self._blob(name).unlink(missing_ok=True)

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

    def strange(self) -> Iterator[str]:
        for folder in (self.blobs, self.locks):
            mode = folder.lstat().st_mode
            if not stat.S_ISDIR(mode):
                yield f"{folder} is {kind_of(folder.lstat())}, not a folder; move it away"
                continue
            if mode & 0o077:
                yield f"others may look into {folder}; close it: chmod 700 {folder}"
            for path in sorted(folder.iterdir()):
                if not stat.S_ISREG((found := path.lstat()).st_mode):
                    yield f"{path} is {kind_of(found)}, and none of ours; move it away"
        if self.path.stat().st_mode & 0o077:
            yield f"others may look into {self.path}; close it: chmod 700 {self.path}"

    def _blob(self, name: str) -> Path:
        """Return a blob's path; StateTorn for a name that leads elsewhere."""
        if Path(name).name != name or name in ("", ".", "..") or "\0" in name:
            raise StateTorn(
                f"the index of {self} names the file {name!r:.100}, which is not in {self.blobs};"
                f" {REMEDY}"
            )
        return self.blobs / name

    def writers(self) -> AbstractContextManager[None]:
        return lease.locked(self._writers, shared=True)

    def no_writers(self) -> AbstractContextManager[bool]:
        return lease.locked_if_free(self._writers)


def _names(folder: Path) -> list[str]:
    # What NFS calls a file that was removed while somebody has it open; it goes with its reader.
    # A folder was put there by somebody: it is nobody's to remove, and `strange` says so.
    return [
        path.name
        for path in folder.iterdir()
        if not path.name.startswith(".nfs") and (path.is_symlink() or not path.is_dir())
    ]


def _open_index(folder: Path, blobs: Path, network: bool) -> Index:
    """Open a folder's index, with the journal that it is to have; the caller holds the folder.

    Raises ValueError if no such journal holds there, StateTorn if the index is missing beside its
    blobs; else as Index.
    """
    path = folder / "index.sqlite"
    for name in (path.name, *(f"{path.name}-{end}" for end in ("wal", "shm", "journal"))):
        check_plain(folder / name)
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
