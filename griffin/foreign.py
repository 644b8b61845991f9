"""Files that others wrote: read whole and within bounds, or refused in one line.

What a stranger's JSON file is read with, in every room: a FIFO, a device or a folder under its name
does not hang, a file of any size or depth takes bounded time and memory, and a key that stands
twice is not chosen between.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

# Small files: configs, indexes. Python's objects take up to forty times their text.
MOST = 4 << 20
# Of lists and objects in each other; what the formats we read need is 4.
DEEPEST = 64
# Lists and objects are what costs: so many, and one more for every so many bytes.
CONTAINERS, _EVERY = 100_000, 32
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def is_there(path: Path) -> bool:
    """Return whether a name stands for anything: a FIFO, a broken link and a file alike.

    Asked where `is_file` would pass over in silence what `read_bytes` refuses by name.
    """
    return os.path.lexists(path)


def open_file(path: Path, refuse: type[ValueError] = ValueError) -> BinaryIO:
    """Open a regular file for reading; `refuse`, naming what it is, for anything else.

    Never waits: not for a FIFO's writer, nor for a device.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
        if kind == stat.S_IFREG:
            number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            return os.fdopen(number, "rb")
    except OSError as error:
        raise refuse(f"{path} cannot be read: {error.strerror}") from None
    raise refuse(f"{path} is {_KINDS.get(kind, 'no file')}; expected a file")


def read_bytes(path: Path, most: int = MOST, refuse: type[ValueError] = ValueError) -> bytes:
    """Return the bytes of a regular file of at most `most`; `refuse`, naming it, otherwise."""
    with open_file(path, refuse) as stream:
        try:
            content = stream.read(most + 1)
        except OSError as error:
            raise refuse(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > most:
        raise refuse(f"{path} has more than {most:,} bytes, the most that is read of such a file")
    return content


def read_json(
    path: Path,
    most: int = MOST,
    refuse: type[ValueError] = ValueError,
    containers: int = CONTAINERS,
) -> Any:
    """Return what a JSON file holds; errors as for `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path, most, refuse), str(path), refuse, containers)


def read_object(
    path: Path, most: int = MOST, refuse: type[ValueError] = ValueError
) -> dict[str, Any]:
    """Return the fields of a JSON file that holds an object; errors as for `read_json`."""
    fields = read_json(path, most, refuse)
    if not isinstance(fields, dict):
        raise refuse(f"{path} must hold a JSON object, not {shown(fields)}")
    return fields


def parse_json(
    content: bytes,
    where: str,
    refuse: type[ValueError] = ValueError,
    containers: int = CONTAINERS,
    finite: bool = False,
) -> Any:
    """Return what a JSON text says. finite: refuse NaN and Infinity, which JSON does not have.

    Raises `refuse`, opened by `where`, for what is not UTF-8 or not JSON, for lists and objects
    more than `DEEPEST` deep or without number, and for an object that has a key twice.
    """
    most = containers + len(content) // _EVERY
    if content.count(b"[") + content.count(b"{") > most:
        raise refuse(f"{where} holds more than {most:,} lists and objects")
    try:
        constant = _no_number if finite else None
        value: Any = json.loads(
            content.decode("utf-8-sig"), object_pairs_hook=_object, parse_constant=constant
        )
        if not _is_deep(value):
            return value
    except UnicodeDecodeError as error:
        raise refuse(f"{where} is not UTF-8 (byte {error.start})") from None
    except _Twice as error:
        raise refuse(f"{where}: {error}") from None
    except RecursionError:
        pass  # deeper than Python follows
    except ValueError as error:
        raise refuse(f"{where} is not JSON: {error}") from None
    raise refuse(f"{where} is more than {DEEPEST} lists and objects deep")


def shown(value: Any, most: int = 80) -> str:
    """Return a value of a stranger's file as an error shows it: one line, cut where it is long."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, (str, list, tuple, dict)) and len(value) > most:
        kind = {str: "text", dict: "object"}.get(type(value), "list")
        return f"{'an' if kind == 'object' else 'a'} {kind} of {len(value)}"
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


class _Twice(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Twice(f"{shown(name)} stands there twice")
            seen.add(name)
    return found


def _is_deep(value: Any) -> bool:
    """Return whether lists and objects lie too deep in each other; without recursion."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(DEEPEST):
        if not level:
            return False
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
    return bool(level)
