"""Write beside, then rename: a result appears whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from griffin.outputs import file_to_write


def _beside(target: Path) -> Path:
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f".{target.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")


def remove_partial(folder: Path) -> None:
    """Remove what killed processes left of their results, from a folder that is ours alone."""
    for left in folder.glob(".*.partial-*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `target` if the block ends well, and else vanishes.

    If `target` holds files, those of the same names are replaced one by one, each whole,
    config.json last; others stay. Ctrl-C and a full disk count as not ending well.
    """
    temporary = _beside(target)
    temporary.mkdir()
    try:
        yield temporary
        if target.exists() and any(target.iterdir()):
            entries = sorted(
                temporary.iterdir(), key=lambda entry: (entry.name == "config.json", entry.name)
            )
            for entry in entries:
                entry.replace(target / entry.name)
        else:
            temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """Yield a path beside `target`, renamed to it if the block ends well, and else removed.

    After a loss of power, too, it is whole or not there.
    """
    target = file_to_write(target)
    temporary = _beside(target)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(target)
        _flush(target.absolute().parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before going on."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
