"""Files that are there whole or not at all, for their owner's eyes only."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from griffin.sessions.errors import StorageFull

PART = ".part"  # ends the names of files that are being written
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
    """Make a folder of mode 0700; ValueError if there is one that others may look into.

    An empty folder is closed; one with files in it may be somebody's on purpose.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_mode & 0o077:
        if any(folder.iterdir()):
            raise ValueError(
                f"others may look into {folder}; conversations want a folder of their own, or close"
                f" this one: chmod 700 {folder}"
            )
        folder.chmod(0o700)


def make_private_file(path: Path) -> None:
    """Make an empty file of mode 0600 if there is none; OSError for a symbolic link.

    One that is there is not touched: closing it would let go of all locks that this process has on
    it. The files that sqlite makes beside it get the mode it has.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    except FileExistsError:
        if path.is_symlink():
            raise OSError(errno.ELOOP, "an index is no symbolic link", str(path)) from None


def _write_all(handle: int, rest: memoryview) -> None:
    while rest:
        rest = rest[os.write(handle, rest) :]
