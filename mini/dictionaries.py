"""Dictionaries as the DICT protocol's server keeps them: an index of places, and a text."""

from __future__ import annotations

import gzip
import re
import string
from collections.abc import Iterator
from pathlib import Path

_DIGITS = {
    digit: value
    for value, digit in enumerate(string.ascii_uppercase + string.ascii_lowercase + "0123456789+/")
}


def entries(folder: Path, name: str, broken: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (headword, its entry) of a package's dictionary, in the order of its text.

    What cannot be read is listed in `broken`.
    """
    place = folder / "usr/share/dictd"
    text = gzip.decompress((place / f"{name}.dict.dz").read_bytes())
    found: dict[tuple[int, int], str] = {}
    lines = (place / f"{name}.index").read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            word, start, length = line.split("\t")[:3]
            where = _number(start), _number(length)
            entry = text[where[0] : sum(where)].decode("utf-8")
        except (ValueError, KeyError, UnicodeDecodeError):
            broken.append(f"{name}.index:{number}")
            continue
        if not word.startswith("00") and len(entry.encode()) == where[1]:
            found.setdefault(where, word)
    for start, length in sorted(found):
        entry = text[start : start + length].decode("utf-8").strip("\n")
        # The index folds case; the entry's first line has the word as it is written.
        head = re.split(r"[,/\n]| {2}", entry, maxsplit=1)[0].strip()
        yield head or found[start, length], entry


def _number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = value * 64 + _DIGITS[digit]
    return value
