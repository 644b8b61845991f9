"""Files that are there whole or not at all, for their owner's eyes only."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from griffin.sessions.errors import StateTorn, StorageFull

PART = ".part"  # ends the names of files that are being written
log = logging.getLogger("griffin.sessions")

_ASIDE = "move it away, or restore the folder from a copy"
_NO_FILE = {errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES, errno.ENOTDIR, errno.EPERM}
_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_durably(target: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write or replace a file of mode 0600; it survives a crash the moment this returns.

    Written beside, flushed to the disk, renamed, and the folder flushed. Whatever goes wrong,
    nothing is left of it and an older file stays. Raises StorageFull when the disk or a limit of
    the system says so.
    """
    if not target.parent.is_dir():
        raise ValueError(f"{target} cannot be written: there is no folder {target.parent}")
    beside = target.with_name(f".{target.name[:64]}.{secrets.token_hex(8)}{PART}")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            for chunk in chunks:
                _write_all(handle, memoryview(chunk))
            os.fsync(handle)
        finally:
            os.close(handle)
        beside.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        if (full := no_room(target, error)) is not None:
            raise full from error
        raise
    finally:
        beside.unlink(missing_ok=True)


def no_room(target: Path, error: OSError) -> StorageFull | None:
    """Return what to raise for an error that says there is no room; None for any other."""
    if error.errno not in _FULL:
        return None
    return StorageFull(
        f"no room to write {target} ({os.strerror(error.errno or 0)}); nothing kept before is lost."
        " Free some space and try again"
    )


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def private_folder(folder: Path) -> None:
    """Make a folder of mode 0700; ValueError if there is one that others may look into,
    NotADirectoryError if there is a file.

    An empty folder is closed; one with files in it may be somebody's on purpose.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (FileExistsError, NotADirectoryError):
        file = next(each for each in (folder, *folder.parents) if each.exists())
        raise NotADirectoryError(
            f"{file} is a file; conversations are kept in a folder: name one, or a new one"
        ) from None
    if folder.stat().st_mode & 0o077:
        if any(folder.iterdir()):
            raise ValueError(
                f"others may look into {folder}; conversations want a folder of their own, or close"
                f" this one: chmod 700 {folder}"
            )
        folder.chmod(0o700)


def inner_folder(folder: Path) -> None:
    """Make a folder of mode 0700 inside a private one; close one that is open, and say so.

    StateTorn for a link or a file in its place.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise StateTorn(f"{folder} is {kind_of(found)}, not a folder; {_ASIDE}")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
        log.warning("%s had the mode %o; it is closed to others now", folder, found.st_mode & 0o777)


def make_private_file(path: Path) -> None:
    """Make an empty file of mode 0600 if there is none; StateTorn for what is no file.

    One that is there is not opened: closing it would let go of all locks that this process has on
    it. The files that sqlite makes beside it get the mode it has.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    check_plain(path)
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
        log.warning("%s was open to others; it is closed to them now", path)


def check_plain(path: Path) -> None:
    """Raise StateTorn for what is there and no plain file: a link, a pipe, a folder."""
    with suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise StateTorn(f"{path} is {kind_of(found)}, not a file; {_ASIDE}")


def open_plain(path: Path, flags: int) -> int:
    """Open a file and nothing else, without waiting; made with mode 0600 if O_CREAT says so.

    Raises StateTorn for a link, a pipe, a folder, or what may not be opened, FileNotFoundError, and
    OSError for what is not the file's fault.
    """
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        check_plain(path)
        raise StateTorn(f"{path} cannot be opened: {error.strerror}; {_ASIDE}") from error
    if not stat.S_ISREG((found := os.fstat(handle)).st_mode):
        os.close(handle)
        raise StateTorn(f"{path} is {kind_of(found)}, not a file; {_ASIDE}")
    return handle


def kind_of(found: os.stat_result) -> str:
    """Return what something in a folder is, in words."""
    return _KINDS.get(stat.S_IFMT(found.st_mode), "a device")


def _write_all(handle: int, rest: memoryview) -> None:
    while rest:
        rest = rest[os.write(handle, rest) :]
