"""Drafts that are right so many times and then wrong, and constraints under which to draft."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from griffin.engine.draft_runner import DraftRunner
from griffin.engine.drafter import Guess
from griffin.engine.row import Row
from griffin.model import Griffin
from griffin.quant import add_screen, quantize_model
from tests.support.toy_engine import CONFIG, V, make_model

MOST = CONFIG.attention_window_size - 1  # drafts, for a ring has to hold all tokens of a call
# Of each request, what its choices say.
Truth = Sequence[Mapping[int, Sequence[int]]]


@cache
def packed(format: str, dtype: torch.dtype = torch.bfloat16, screen: bool = False) -> Griffin:
    model = quantize_model(make_model().to(dtype), format)
    return add_screen(model) if screen else model


class Thirds:
    """A constraint with memory: after an id only those of the next class of three may come, of some
    only one, and some answers end early."""

    def __init__(self, ends: int) -> None:
        self._last, self._left = 0, ends

    def allowed(self) -> Tensor:
        mask = torch.arange(V) % 3 == (self._last + 1) % 3
        if forced := self.forced():
            mask = torch.arange(V) == forced[0]
        return mask

    def accept(self, id: int) -> bool:
        self._last, self._left = id, self._left - 1
        return self._left == 0

    def forced(self) -> Sequence[int]:
        return [self._last + 1] if self._last % 5 == 0 and self._last + 1 < V else []


class Told(DraftRunner):
    """Proposes what an answer without drafts said, right so many times and then wrong.

    met: of the calls, how many drafts a row had, and how many of them were right.
    """

    def __init__(self, model: Griffin, truth: Truth, seed: int, most: int = MOST) -> None:
        super().__init__(model)
        self.truth, self.draw, self.most = truth, random.Random(seed), most
        self.met: set[tuple[int, int]] = set()

    def _known(self, row: Row) -> Sequence[int]:
        return self.truth[row.ticket.number].get(row.choice, [])[len(row.chosen) :]

    def _proposed(self, row: Row, most: int) -> Guess:
        assert row.sampler is not None
        known, size = self._known(row), row.sampler.vocab_size
        count = self.draw.randint(0, min(most, self.most))
        right = self.draw.randint(0, count)
        wrong = [(known[right] + 1) % size] if len(known) > right else []
        told = [*known[:right], *wrong]
        told += [self.draw.randrange(size) for _ in range(count - len(told))]
        return Guess(told[:count], 8)

    def _read_ahead(self, batch: Any, rows: Sequence[Row], drafts: Sequence[Guess]) -> None:
        super()._read_ahead(batch, rows, drafts)
        for row, draft in zip(rows, drafts, strict=True):
            known = self._known(row)
            right = 0
            while right < min(len(draft.ids), len(known)) and draft.ids[right] == known[right]:
                right += 1
            self.met.add((len(draft.ids), right))
