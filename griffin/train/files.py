"""Small files of a run, never half written."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON beside the file, then put it in its place; whole after a loss of
    power."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    put_in_place(part, path)


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
