"""The pairs of answers of a run, in an order that is a function of its seed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from griffin.model import Griffin
from griffin.train.data.encode import Encoded
from griffin.train.data.rows import pad_documents
from griffin.train.data.store import TokenStore
from griffin.train.loss import token_nats
from griffin.tune.order import Order


@dataclass(frozen=True)
class Pair:
    """A prompt with the better answer to it, and with the worse. number: its place among all."""

    number: int
    chosen: Encoded
    rejected: Encoded

    @property
    def lengths(self) -> tuple[int, int]:
        """How many tokens each answer has, its end included."""
        return int(self.chosen.counted.sum()), int(self.rejected.counted.sum())

    @property
    def tokens(self) -> int:
        """How many tokens are read of both."""
        return len(self.chosen.ids) + len(self.rejected.ids) - 2


class Pairs:
    """All pairs of some stores; each epoch has every one once, shuffled anew.

    stores: of two documents a pair. seed: of the order. length: tokens that are read of one answer
    with its prompt at most; pairs with a longer one are left out, `left_out` of them.
    """

    def __init__(self, stores: Sequence[TokenStore], seed: int, length: int) -> None:
        self._stores, self._length = list(stores), length
        longest = [np.diff(store.starts).reshape(-1, 2).max(1) - 1 for store in stores]
        self._order = Order(longest, length, seed)
        self.left_out = self._order.left_out

    def __len__(self) -> int:
        return len(self._order)

    @property
    def tokens(self) -> int:
        """How many tokens are read of all pairs."""
        return sum(self.listed(number).tokens for number in range(len(self)))

    def at(self, number: int) -> Pair:
        """Return a pair of the run, counted from its beginning over all epochs."""
        return self.listed(self._order.at(number))

    def listed(self, number: int) -> Pair:
        """Return a pair in the order of the stores."""
        source, place = self._order.place(number)
        store = self._stores[source]
        return Pair(number, store.encoded(2 * place), store.encoded(2 * place + 1))

    def digest(self) -> str:
        """Return a hash of what is read of the pairs, in the order of the stores."""
        total = hashlib.sha256(f"{self._length}".encode())
        for store in self._stores:
            for column in (store.ids, store.starts, store.counted):
                if column is not None:
                    total.update(f"{column.dtype} {column.shape}".encode())
                    total.update(np.ascontiguousarray(column).data)
        return total.hexdigest()


def log_probabilities(
    model: Griffin,
    pairs: Sequence[Pair],
    dtype: torch.dtype = torch.float32,
    *,
    in_place: bool = False,
) -> Tensor:
    """Return the log-probability of both answers of each pair, (P, 2), with gradients.

    Chosen and rejected answers are read together, padded on the right, which causality makes free.
    dtype and in_place: as for `griffin.train.loss.row_nats`.
    """
    documents = [each for pair in pairs for each in (pair.chosen, pair.rejected)]
    longest = max(len(document.ids) for document in documents) - 1
    batch = pad_documents(documents, longest).rows(slice(None), model.device)
    head = model.head
    # A packed model computes what it does when it answers, whatever dtype is.
    narrow = dtype.itemsize < 4 and isinstance(head, Tensor)
    with torch.autocast(model.device.type, dtype, enabled=narrow):
        hidden, _ = model.trunk(batch.tokens, None, batch.segment_pos)
    cap = model.config.logits_soft_cap
    nats = token_nats(hidden, head, batch.targets, batch.mask, cap, dtype, in_place=in_place)
    return -nats.sum(-1).view(-1, 2)
