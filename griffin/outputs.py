"""Where a result may be written: to a file, or where nothing is yet."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def file_to_write(path: str | os.PathLike[str]) -> Path:
    """Return the file that a path means: what a link leads to, or the path as it is.

    Results are written beside and renamed, and a name that is given to a device or a link would be
    taken from it. Raises ValueError for what is there and is no file.
    """
    named = Path(path)
    target = Path(os.path.realpath(named)) if named.is_symlink() else named
    if target.exists() and not target.is_file():
        kind = _KINDS.get(stat.S_IFMT(target.stat().st_mode), "not a file")
        raise ValueError(f"{path} is {kind}; name a file to write, or one that is not there yet")
    return target


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path beside a file that becomes it if the block ends well, and else is removed.

    A reader sees the old file or the whole new one. Raises ValueError as `file_to_write`.
    """
    target = file_to_write(path)
    beside = target.with_name(f".{target.name}.part")
    try:
        yield beside
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
