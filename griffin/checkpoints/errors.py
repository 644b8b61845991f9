"""What goes wrong with weights on disk."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written as asked: one line: file, tensor, expected,
    found."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class CheckpointWarning(UserWarning):
    """A checkpoint was read, but not all of it was used; the message says what was left out."""


def one_line(text: str, most: int = 1000) -> str:
    """Return a text that may hold a stranger's words as one printable line, cut where it is
    long."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= most else f"{text[:most]} ..."


def listed(names: Iterable[str], limit: int = 6) -> str:
    """Join names with commas; beyond `limit`, say how many more there are."""
    names = list(names)
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn a full disk into one clear line; the error stays an OSError with its number."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            error.errno,
            f"no room to write {target} ({error.strerror}); nothing half-written was left",
        ) from error
