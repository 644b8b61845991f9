"""Where a result may be written: to a file, or where nothing is yet."""

from __future__ import annotations

import os
import stat
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
