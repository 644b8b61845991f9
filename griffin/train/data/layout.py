"""Where the tokens of an epoch go: which pieces of which documents fill which row.

A layout is made from the documents' lengths alone; no token is read for it. A piece is a run of a
document's pairs (token, next token).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np

from griffin.train.data.store import TokenStore


@dataclass(frozen=True)
class EpochLayout:
    """Hold the pieces of an epoch in the order in which they stand in its rows.

    documents, firsts, counts: (P,) int64; piece p is `counts[p]` pairs of a document from its pair
                               `firsts[p]` on.
    rows:                      (rows + 1,) int64; row r has the pieces rows[r] to rows[r + 1].
    left_out:                  pieces that have no target and are in no row.
    """

    documents: np.ndarray
    firsts: np.ndarray
    counts: np.ndarray
    rows: np.ndarray
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.rows) - 1

    def targets(self, store: TokenStore) -> np.ndarray:
        """Return how many counted targets each row has, (rows,) int64."""
        return np.add.reduceat(_targets(store, self), self.rows[:-1]) if len(self) else self.rows


def cut(store: TokenStore, documents: np.ndarray, length: int) -> EpochLayout:
    """Lay documents end to end in the given order and cut rows of `length` pairs from them.

    What is left at the end, less than a row, is not read.
    """
    pairs = np.diff(store.starts)[documents] - 1
    ends = np.concatenate([[0], np.cumsum(pairs)])
    rows = np.arange(ends[-1] // length + 1) * length
    borders = np.union1d(ends, rows)
    borders = borders[borders <= rows[-1]]
    places = np.searchsorted(ends, borders[:-1], side="right") - 1
    return EpochLayout(
        documents[places],
        borders[:-1] - ends[places],
        np.diff(borders),
        np.searchsorted(borders, rows),
    )


def best_fit(store: TokenStore, documents: np.ndarray, length: int) -> EpochLayout:
    """Place documents whole, the longest first, each in the fullest row that has room for it.

    "Fewer Truncations Improve Language Modeling" (arXiv:2404.10830), best-fit decreasing. A
    document longer than a row is cut into rows and a rest; pieces without a target are left out.
    The order given decides which of equal lengths is first, never how many rows there are.
    """
    pairs = np.diff(store.starts)[documents] - 1
    parts = -(-pairs // length)
    owners = np.repeat(np.arange(len(documents)), parts)
    firsts = (np.arange(len(owners)) - (np.cumsum(parts) - parts)[owners]) * length
    counts = np.minimum(length, pairs[owners] - firsts)
    pieces = EpochLayout(documents[owners], firsts, counts, np.zeros(1, dtype=np.int64))
    real = _targets(store, pieces) > 0
    rows = fit(counts[real], length)
    order = np.argsort(rows, kind="stable")
    sizes = np.bincount(rows)
    return EpochLayout(
        documents[owners][real][order],
        firsts[real][order],
        counts[real][order],
        np.concatenate([[0], np.cumsum(sizes)]),
        left_out=int(np.sum(~real)),
    )


def fit(sizes: np.ndarray, length: int) -> np.ndarray:
    """Return the row of each piece, best-fit decreasing. sizes: (P,) in 1..length.

    Pieces of one size go to rows of one room many at a time: the work is that of the sizes and
    rooms there are, not of pieces times rows.
    """
    order = np.argsort(-sizes, kind="stable")
    rows, used = np.empty(len(sizes), dtype=np.int64), 0
    rooms, having = list[int](), dict[int, list[int]]()  # rooms in order; the rows that have one
    ends = np.flatnonzero(np.diff(sizes[order], append=0)) + 1
    for left in np.split(order, ends[:-1]) if len(sizes) else ():
        size = int(sizes[left[0]])
        while len(left):
            place = bisect_left(rooms, size)
            room = rooms[place] if place < len(rooms) else length
            # The fullest row stays the fullest that fits until it has no room for another.
            each = min(room // size, len(left))
            many = len(left) // each
            if place < len(rooms):
                known = having[room]
                taken, having[room] = known[-many:], known[:-many]
                if not having[room]:
                    del having[room], rooms[place]
            else:
                taken = list(range(used, used + many))
                used += many
            rows[left[: len(taken) * each]] = np.repeat(taken, each)
            left = left[len(taken) * each :]
            if rest := room - each * size:
                if rest not in having:
                    insort(rooms, rest)
                having.setdefault(rest, []).extend(taken)
    return rows


def _targets(store: TokenStore, pieces: EpochLayout) -> np.ndarray:
    """Return how many counted targets each piece has."""
    starts = store.starts[pieces.documents] + pieces.firsts + 1
    return store.counted_before(starts + pieces.counts) - store.counted_before(starts)
