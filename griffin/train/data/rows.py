"""Documents as rows of fixed length: encoded once, kept on disk, packed anew for every epoch.

A document of n tokens, <bos> first and <eos> last, is n - 1 pairs (token, next token). An epoch
shuffles the documents, lays their pairs end to end and cuts rows of equal length from them; then
the rows are shuffled. So every pair is trained on once an epoch (but for less than a row at the
end), no position is wasted on padding, and no target ever belongs to another document.
`segment_pos` is 0 where a document starts and where a row starts: the piece of a document that a
cut leaves at the head of a row is read without what came before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from griffin.train.data.store import TokenStore


@dataclass(frozen=True)
class TrainBatch:
    """Hold rows for one step.

    tokens, targets, segment_pos: (R, L) int64; mask: (R, L) bool, False where a target is no real
                                  one.
    """

    tokens: Tensor
    targets: Tensor
    segment_pos: Tensor
    mask: Tensor

    def rows(self, place: slice, device: torch.device) -> TrainBatch:
        """Return some of the rows, on a device."""
        parts = (self.tokens, self.targets, self.segment_pos, self.mask)
        return TrainBatch(*(part[place].to(device) for part in parts))


class Packer:
    """Cut a token store into rows; row number n is the same whenever it is asked for."""

    def __init__(self, store: TokenStore, length: int, seed: int) -> None:
        """length: tokens in a row. Raises ValueError if the store has too few tokens for a single
        row."""
        self.store, self.length, self.seed = store, length, seed
        self.rows_per_epoch = store.num_pairs // length
        if not self.rows_per_epoch:
            raise ValueError(
                f"the training documents hold {store.num_pairs} tokens, less than one row of"
                f" {length}; shorten train.length or add documents"
            )
        self._epoch = -1
        self._documents = self._row_order = np.zeros(0, dtype=np.int64)
        self._offsets = np.zeros(1, dtype=np.int64)

    def batch(self, first_row: int, rows: int) -> TrainBatch:
        """Return `rows` rows from `first_row` on, counted from training's start over all epochs."""
        tokens = np.empty((rows, self.length), dtype=np.int64)
        targets, positions = np.empty_like(tokens), np.empty_like(tokens)
        for index in range(rows):
            epoch, row = divmod(first_row + index, self.rows_per_epoch)
            self._enter(epoch)
            self._fill(int(self._row_order[row]), tokens[index], targets[index], positions[index])
        mask = torch.ones(rows, self.length, dtype=torch.bool)
        return TrainBatch(
            torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(positions), mask
        )

    def documents(self, row: int) -> list[tuple[str, int]]:
        """Return the documents in a row, by path, and at which of its tokens each begins there."""
        epoch, row = divmod(row, self.rows_per_epoch)
        self._enter(epoch)
        at = int(self._row_order[row]) * self.length
        first = int(np.searchsorted(self._offsets, at, side="right")) - 1
        last = int(np.searchsorted(self._offsets, at + self.length, side="left"))
        return [
            (
                self.store.paths[int(self._documents[place])],
                max(0, at - int(self._offsets[place])),
            )
            for place in range(first, last)
        ]

    def _enter(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        random = np.random.default_rng([self.seed, epoch])
        self._documents = random.permutation(len(self.store.paths))
        self._row_order = random.permutation(self.rows_per_epoch)
        pairs = np.diff(self.store.starts)[self._documents] - 1
        self._offsets = np.concatenate([[0], np.cumsum(pairs)])
        self._epoch = epoch

    def _fill(
        self, row: int, tokens: np.ndarray, targets: np.ndarray, positions: np.ndarray
    ) -> None:
        at, end, filled = row * self.length, (row + 1) * self.length, 0
        place = int(np.searchsorted(self._offsets, at, side="right")) - 1
        while at < end:
            start = int(self.store.starts[self._documents[place]]) + at - int(self._offsets[place])
            count = min(end, int(self._offsets[place + 1])) - at
            ids = self.store.ids[start : start + count + 1]
            tokens[filled : filled + count] = ids[:-1]
            targets[filled : filled + count] = ids[1:]
            positions[filled : filled + count] = np.arange(count)
            at, filled, place = at + count, filled + count, place + 1


def pad_documents(documents: Iterable[np.ndarray], length: int) -> TrainBatch:
    """Cut each document on its own into rows of `length`, in order, padded on the right.

    Padding is id 0 with its target masked; causality keeps it from the real tokens before it.
    """
    parts = []
    for ids in documents:
        pairs = len(ids) - 1
        padded = np.zeros((3, -(-pairs // length) * length), dtype=np.int64)
        padded[0, :pairs], padded[1, :pairs], padded[2, :pairs] = ids[:-1], ids[1:], 1
        parts.append(padded.reshape(3, -1, length))
    tokens, targets, mask = torch.from_numpy(np.concatenate(parts, axis=1))
    return TrainBatch(tokens, targets, torch.arange(length).expand_as(tokens), mask.bool())
