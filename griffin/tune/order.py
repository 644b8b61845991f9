"""Which items of a run's stores are read, and in which order: a function of the seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Order:
    """Items of some stores; each epoch has every one once, shuffled anew.

    lengths: of the items of each store, in tokens. most: longer ones are left out, `left_out` of
    them. seed: of the order.
    """

    def __init__(self, lengths: Sequence[np.ndarray], most: int, seed: int) -> None:
        self._places = [
            (number, int(place))
            for number, each in enumerate(lengths)
            for place in np.flatnonzero(each <= most)
        ]
        self.left_out = sum(map(len, lengths)) - len(self._places)
        self._seed, self._epoch = seed, -1
        self._shuffled = np.arange(len(self._places))

    def __len__(self) -> int:
        return len(self._places)

    def at(self, number: int) -> int:
        """Return which item is read, as `place` counts them; number: of the run, counted from its
        beginning over all epochs."""
        epoch, place = divmod(number, len(self))
        if epoch != self._epoch:
            self._shuffled = np.random.default_rng([self._seed, epoch]).permutation(len(self))
            self._epoch = epoch
        return int(self._shuffled[place])

    def place(self, number: int) -> tuple[int, int]:
        """Return the store of an item, in the order of the stores, and its place there."""
        return self._places[number]
