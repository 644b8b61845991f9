"""What a text will probably say next, by what stood behind the same tokens before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LONGEST, SHORTEST = 8, 2  # tokens that have to be the same
GIVEN = 0  # the match of what follows a given text without having been found by its last tokens
MOST_TOKENS = 1 << 16  # of which the places are known; after twice as many the older half goes
_BITS = 15
_MASK = (1 << 64) - 1
_POWERS = [pow(0x9E3779B97F4A7C15, n, 1 << 64) for n in range(1, LONGEST + 1)]
_LENGTHS = range(SHORTEST, LONGEST + 1)
_BARRIER = -1  # no token's id: stands between texts


class Guess(NamedTuple):
    """Ids that may come next, and how many tokens before them were the same."""

    ids: list[int]
    match: int


class Drafter:
    """The tokens of one answer so far, found by their last 8 down to 2; the newest place counts.

    ids:        what the answer goes on from, oldest first.
    prediction: what it will probably say; proposed from its beginning, and then as all else.
    Takes 0.9 MiB for tables, and of the tokens 4 bytes each, of the last 131,072 at most.
    """

    def __init__(self, ids: Sequence[int], prediction: Sequence[int] = ()) -> None:
        given = [np.array([*prediction, _BARRIER], np.int32)] if len(prediction) else []
        every = np.concatenate([*given, np.asarray(ids[-MOST_TOKENS:], np.int32)])
        self._ids: list[int] = every.tolist()
        self._next: int | None = 0 if len(prediction) else None
        self._tables = np.full((len(_LENGTHS), 1 << _BITS), -1, np.int32)
        self._learn(every)

    def add(self, id: int) -> None:
        """Take a token that was chosen."""
        ids = self._ids
        # Only now something stands behind the tokens before it.
        for table, place in zip(self._tables, self._places(), strict=False):
            table[place] = len(ids) - 1
        if self._next is not None:
            self._next = self._next + 1 if ids[self._next] == id else None
        ids.append(id)
        if len(ids) > 2 * MOST_TOKENS:
            gone = len(ids) - MOST_TOKENS
            self._ids = ids[gone:]
            self._next = None
            self._tables.fill(-1)
            self._learn(np.array(self._ids, np.int32))

    def propose(self, most: int) -> Guess:
        """Return up to `most` ids that may come next; none where nothing is known."""
        ids, last = self._ids, len(self._ids) - 1
        places = self._places()
        for n in range(SHORTEST + len(places) - 1, SHORTEST - 1, -1):
            at = int(self._tables[n - SHORTEST, places[n - SHORTEST]])
            if at >= n - 1 and ids[at - n + 1 : at + 1] == ids[last - n + 1 :]:
                return Guess(self._from(at + 1, most), n)
        if self._next is not None:
            return Guess(self._from(self._next, most), GIVEN)
        return Guess([], GIVEN)

    def _from(self, at: int, most: int) -> list[int]:
        """Return what stands from a place on; a text that repeats itself goes on doing so."""
        found = self._ids[at : at + most]
        if _BARRIER in found:
            return found[: found.index(_BARRIER)]
        period = len(self._ids) - at
        while found and len(found) < most:
            found.append(found[len(found) - period])
        return found

    def _places(self) -> list[int]:
        """Return where the tables tell of the last tokens, of the fewest first."""
        places, sum_ = [], 0
        for n, id in enumerate(reversed(self._ids[-LONGEST:]), 1):
            sum_ = (sum_ + (id + 2) * _POWERS[n - 1]) & _MASK
            if n >= SHORTEST:
                places.append(sum_ >> (64 - _BITS))
        return places

    def _learn(self, ids: np.ndarray) -> None:
        """Note the place of all last tokens that something stands behind; later ones count."""
        values = (ids.astype(np.int64) + 2).astype(np.uint64)
        sums = np.zeros(len(ids), np.uint64)
        for n in range(1, min(LONGEST, len(ids)) + 1):
            # sums[t] is of the n tokens up to t.
            back = values[: len(ids) - n + 1]
            sums[n - 1 :] += back * np.uint64(_POWERS[n - 1])
            if n >= SHORTEST and len(ids) > n:
                ends = np.arange(n - 1, len(ids) - 1, dtype=np.int32)
                self._tables[n - SHORTEST, sums[ends] >> np.uint64(64 - _BITS)] = ends
