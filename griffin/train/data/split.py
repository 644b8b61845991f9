"""Which documents are held out: those whose hash says so, unless training has their lines.

A document's fate is a number that depends on its name (a file) or content (a row) alone. Held out
are the documents of a low fate, except those of which a tenth of the lines stand in training: these
go there too, and so on until none is left. So near copies stay on one side, adding documents never
moves one from training, and a held-out one moves only where something that repeats it was added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

LONG = 40  # characters; shorter lines repeat by chance
_SHARE = 0.1  # of a document's lines in training, from which on it is no longer held out
_CHUNK = 1 << 22  # lines looked up at a time


@dataclass(frozen=True)
class Overlap:
    """Say how far held-out text stands in training.

    lines:  held-out lines of more than `LONG` characters, each once a document.
    shared: how many of them stand in training.
    """

    lines: int = 0
    shared: int = 0

    @property
    def share(self) -> float:
        return self.shared / self.lines if self.lines else 0.0

    def __str__(self) -> str:
        return f"{self.share:.1%} of {self.lines:,} held-out lines over {LONG} characters"


def fate_of(identity: bytes) -> float:
    """Return a number in [0, 1) that depends on some bytes alone, the same on every machine."""
    return int.from_bytes(hashlib.sha256(identity).digest()[:8], "big") / 2**64


def line_hashes(text: str) -> np.ndarray:
    """Return uint64 hashes of a document's distinct lines of more than `LONG` characters, sorted.

    White space around a line does not count. A document without such lines is one line.
    """
    lines = {line for each in text.splitlines() if len(line := each.strip()) > LONG}
    found = [
        int.from_bytes(hashlib.blake2b(line.encode(), digest_size=8).digest(), "little")
        for line in lines or {text.strip()}
    ]
    return np.unique(np.asarray(found, dtype=np.uint64))


def split(
    fates: np.ndarray, starts: np.ndarray, lines: np.ndarray, share: float
) -> tuple[np.ndarray, Overlap]:
    """Return which documents are held out, (documents,) bool, and what of them stands in training.

    fates:  (documents,) float64, what `fate_of` says of each.
    starts: (documents + 1,) int64, where the lines of each begin in `lines`, the uint64 that
            `line_hashes` gave, which may be memory-mapped: they are read in pieces.
    share:  of the documents, which is about how many are held out.
    One document at least is held out and one trained on, if there are two.
    """
    held = fates < share
    if len(fates) > 1 and held.all():
        held[int(fates.argmax())] = False
    if len(fates) > 1 and not held.any():
        held[int(fates.argmin())] = True
    chosen = np.flatnonzero(held)
    parts = [np.asarray(lines[starts[place] : starts[place + 1]]) for place in chosen]
    known = np.unique(np.concatenate([*parts, np.zeros(0, np.uint64)]))
    where = [np.searchsorted(known, part) for part in parts]
    seen = np.zeros(len(known), dtype=bool)
    for place in _found(known, starts, lines, held):
        seen[place] = True
    left = dict(zip(chosen.tolist(), where, strict=True))
    while True:
        shares = {place: float(seen[at].mean()) for place, at in left.items() if len(at)}
        copies = [place for place, part in shares.items() if part >= _SHARE]
        if len(copies) == len(left) and copies:  # something is held out, whatever it is
            copies.remove(min(copies, key=lambda place: (shares[place], fates[place])))
        if not copies:
            break
        for place in copies:
            seen[left.pop(place)] = True
            held[place] = False
    counts = [(len(at), int(seen[at].sum())) for at in left.values()]
    return held, Overlap(sum(n for n, _ in counts), sum(n for _, n in counts))


def _found(
    known: np.ndarray, starts: np.ndarray, lines: np.ndarray, held: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield the places in `known`, sorted, of lines that stand in documents not held out."""
    if not len(known):
        return
    for first in range(0, len(lines), _CHUNK):
        chunk = np.asarray(lines[first : first + _CHUNK])
        owners = np.searchsorted(starts, np.arange(first, first + len(chunk)), side="right") - 1
        chunk = chunk[~held[owners]]
        places = np.minimum(np.searchsorted(known, chunk), len(known) - 1)
        yield places[known[places] == chunk]
