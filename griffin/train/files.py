"""Small files of a run, never half written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def no_run(path: Path, error: Exception) -> ValueError:
    """Return what is said of a folder that is no run's: its file `path` could not be read."""
    why = getattr(error, "strerror", None) or error
    return ValueError(f"{path.parent} is no run's folder: {path.name} cannot be read ({why})")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Have an OSError of the block say in one line what could not be written, and why.

    A full disk names no file. The error keeps its number.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        why = os.strerror(error.errno).lower()
        raise OSError(error.errno, f"could not write {path}: {why}") from error


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, as `write_text` does."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text beside the file, then put it in its place; whole after a loss of power.

    Raises OSError, in a line that names the file, and leaves the old one alone.
    """
    part = path.with_name(path.name + ".part")
    try:
        with writing(path):
            part.write_text(text, encoding="utf-8")
            put_in_place(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def put_in_place(part: Path, final: Path) -> None:
    """Give what was written under another name its own, once it is on the disk."""
    flush(part)
    part.replace(final)
    flush(final.parent)


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before going on."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
