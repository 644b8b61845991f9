"""The prompts of a run in the order in which they are answered: a function of its seed alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from griffin.train.data.example import read_example, words_of
from griffin.train.data.prepare import SourceData
from griffin.train.data.store import TokenStore
from griffin.tune.order import Order
from griffin.tune.reward.file import BUNDLED


@dataclass(frozen=True)
class Question:
    """A prompt: its ids, its text (of messages what they say, line by line), its row's columns."""

    ids: tuple[int, ...]
    text: str
    row: Mapping[str, Any]


class Prompts:
    """All prompts of some stores; each epoch has every one once, shuffled anew.

    stores: each with the rows that its prompts stand in. seed: of the order. most: tokens of the
    longest prompt; longer ones are left out, `left_out` of them.
    Raises ValueError if none is left.
    """

    def __init__(
        self,
        stores: Sequence[tuple[TokenStore, Sequence[Mapping[str, Any]]]],
        seed: int,
        most: int,
    ) -> None:
        self._stores = list(stores)
        self._order = Order([np.diff(store.starts) for store, _ in stores], most, seed)
        self.left_out = self._order.left_out
        if not len(self._order):
            raise ValueError(
                f"there is no prompt of at most {most} tokens; train.length holds a prompt and its"
                " answer, so raise it, or lower tune.answer_tokens"
            )

    def __len__(self) -> int:
        return len(self._order)

    @property
    def tokens(self) -> int:
        """How many tokens all prompts have."""
        places = (self._order.place(number) for number in range(len(self)))
        return sum(len(self._stores[source][0].document(place)) for source, place in places)

    def at(self, number: int) -> Question:
        """Return a prompt of the run, counted from its beginning over all epochs."""
        return self.listed(self._order.at(number))

    def listed(self, number: int) -> Question:
        """Return a prompt in the order of the stores."""
        source, place = self._order.place(number)
        store, rows = self._stores[source]
        text = words_of(read_example(rows[place], ("prompt",)))
        return Question(tuple(store.document(place).tolist()), text, rows[place])


def check_column(reward: str, sources: Sequence[SourceData], share: float) -> None:
    """Raise ValueError if a reward of the package has nothing to compare answers with.

    share: of a source's training prompts that may be without.
    """
    if reward not in BUNDLED:
        return
    for source in sources:
        without = sum(row.get("answer") is None for row in source.train_rows)
        if without > share * len(source.train_rows):
            raise ValueError(
                f"tune.reward = {reward!r} compares answers with the column `answer` of the"
                f" prompt's row; {without} of the {len(source.train_rows)} training prompts of"
                f" {source.name} have none: add the column, or name a function of your own,"
                " FILE.py:FUNCTION"
            )
