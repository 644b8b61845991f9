"""Documents as rows of fixed length: encoded once, kept on disk, packed anew for every epoch.

A document of n tokens, <bos> first and <eos> last, is n - 1 pairs (token, next token). An epoch
shuffles the documents and fills rows with their pairs, `cut` or `best_fit` of layout.py; then the
rows are shuffled. No target ever belongs to another document. `segment_pos` is 0 where a document
starts and where a row starts: the piece of a document that a cut leaves at the head of a row is
read without what came before it. With streams it is not: then a document goes on in the next row
of its stream.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from griffin.train.data.encode import Encoded
from griffin.train.data.layout import best_fit, cut
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

    def without_ends(self) -> TrainBatch:
        """Return the rows up to the last token that is counted in any of them."""
        columns = self.mask.any(dim=0).nonzero()
        length = int(columns[-1]) + 1 if len(columns) else 1
        parts = (self.tokens, self.targets, self.segment_pos, self.mask)
        return TrainBatch(*(part[:, :length] for part in parts))


class Packer:
    """Fill rows from a token store; row number n is the same whenever it is asked for.

    In a store that counts every token, each epoch has the same number of rows. Where answers alone
    are counted, rows without a target are left out, and with "cut" their number is each epoch's
    own: it is found from lengths, epoch after epoch, when a row beyond is asked for.
    """

    def __init__(
        self,
        store: TokenStore,
        length: int,
        seed: int | Sequence[int],
        packing: Literal["cut", "best-fit"] = "cut",
        streams: int = 0,
    ) -> None:
        """length: tokens in a row. streams: 0, or how many rows stand side by side in a micro-batch
        whose documents go on in the row of the same place in the next one ("cut" only; every row is
        kept, and read in order). Raises ValueError if the store has too few tokens for a single
        row, or one for every stream.
        """
        self.store, self.length, self.packing, self.streams = store, length, packing, streams
        self.seeds = [seed] if isinstance(seed, int) else list(seed)
        self._epoch = -1
        self._enter(0)
        if not len(self._order):
            need = f"less than {streams} rows" if streams > 1 else "less than one row"
            if store.counted is not None and not len(store.counted):
                need = "none of them a target, for rows"
            raise ValueError(
                f"the training documents hold {store.num_pairs} tokens, {need} of {length};"
                " shorten train.length or add documents"
            )
        # Of the first epoch: rows, or pieces of documents with "best-fit", that have no target.
        self.left_out = self._layout.left_out
        if not streams:
            self.left_out += len(self._layout) - len(self._order)
        self._ends = [0, len(self._order)]  # of the epochs known so far, in rows
        self._alike = bool(store.counted is None or packing == "best-fit" or streams)

    @property
    def rows_per_epoch(self) -> int:
        """Rows of the first epoch."""
        return self._ends[1]

    def rows_in(self, epochs: float) -> int:
        """Return how many rows the first epochs have, the last of them perhaps in part."""
        whole = int(epochs)
        rows = self._before(whole)
        return rows + int((self._before(whole + 1) - rows) * (epochs - whole))

    def epochs_at(self, row: int) -> float:
        """Return how many epochs have been read when `row` rows have."""
        epoch, place = self._locate(row)
        return epoch + place / (self._before(epoch + 1) - self._before(epoch))

    def batch(self, first_row: int, rows: int) -> TrainBatch:
        """Return `rows` rows from `first_row` on, counted from training's start over all epochs."""
        return join(self.fill(row) for row in range(first_row, first_row + rows))

    def fill(self, row: int) -> np.ndarray:
        """Return tokens, targets, segment_pos and mask of one row, (4, L) int64."""
        epoch, place = self._locate(row)
        self._enter(epoch)
        filled = np.zeros((4, self.length), dtype=np.int64)
        at = 0
        for document, first, count in self._pieces(place):
            start = int(self.store.starts[document]) + first
            ids = self.store.ids[start : start + count + 1]
            # Of a document that goes on, what the stream's earlier rows have read of it.
            known = min(first, place // self.streams * self.length) if self.streams else 0
            part = slice(at, at + count)
            filled[0, part], filled[1, part] = ids[:-1], ids[1:]
            filled[2, part] = np.arange(known, known + count)
            filled[3, part] = self.store.is_counted(start + 1, start + count + 1)
            at += count
        filled[2, at:] = np.arange(self.length - at)  # padding sees nothing before it
        return filled

    def documents(self, row: int) -> list[tuple[str, int]]:
        """Return the documents in a row, by path, and at which of its tokens each begins there."""
        epoch, place = self._locate(row)
        self._enter(epoch)
        return [(self.store.paths[document], first) for document, first, _ in self._pieces(place)]

    def _pieces(self, place: int) -> Iterable[tuple[int, int, int]]:
        row, laid = int(self._order[place]), self._layout
        part = slice(int(laid.rows[row]), int(laid.rows[row + 1]))
        columns = (laid.documents[part], laid.firsts[part], laid.counts[part])
        return zip(*(column.tolist() for column in columns), strict=True)

    def _before(self, epoch: int) -> int:
        """Return how many rows all epochs before one have."""
        if self._alike:
            return epoch * self._ends[1]
        while len(self._ends) <= epoch:
            self._enter(len(self._ends) - 1)
            self._ends.append(self._ends[-1] + len(self._order))
        return self._ends[epoch]

    def _locate(self, row: int) -> tuple[int, int]:
        """Return the epoch of a row, and its number there."""
        if self._alike:
            return divmod(row, self._ends[1])
        while self._ends[-1] <= row:
            self._before(len(self._ends))
        epoch = bisect_right(self._ends, row) - 1
        return epoch, row - self._ends[epoch]

    def _enter(self, epoch: int) -> None:
        """Make an epoch's layout and the order of its rows the current ones."""
        if epoch == self._epoch:
            return
        random = np.random.default_rng([*self.seeds, epoch])
        documents = random.permutation(len(self.store.paths))
        lay = best_fit if self.packing == "best-fit" else cut
        self._layout = lay(self.store, documents, self.length)
        if self.streams:
            each = len(self._layout) // self.streams
            self._order = np.arange(each * self.streams).reshape(self.streams, each).T.ravel()
        else:
            kept = np.flatnonzero(self._layout.targets(self.store))
            self._order = kept[random.permutation(len(kept))]
        self._epoch = epoch


def join(rows: Iterable[np.ndarray]) -> TrainBatch:
    """Return rows that `Packer.fill` made as one batch."""
    tokens, targets, positions, mask = torch.from_numpy(np.stack(list(rows), axis=1))
    return TrainBatch(tokens, targets, positions, mask.bool())


def pad_documents(documents: Iterable[Encoded], length: int) -> TrainBatch:
    """Cut each document on its own into rows of `length`, in order, padded on the right.

    What is not counted is masked. Padding is id 0, masked too; causality keeps it from the real
    tokens before it.
    """
    parts = []
    for document in documents:
        ids, pairs = document.ids, len(document.ids) - 1
        padded = np.zeros((3, -(-pairs // length) * length), dtype=np.int64)
        padded[0, :pairs], padded[1, :pairs] = ids[:-1], ids[1:]
        padded[2, :pairs] = document.counted[1:]
        parts.append(padded.reshape(3, -1, length))
    tokens, targets, mask = torch.from_numpy(np.concatenate(parts, axis=1))
    return TrainBatch(tokens, targets, torch.arange(length).expand_as(tokens), mask.bool())
