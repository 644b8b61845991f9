"""Who moves the rows of a batch on: calls of the model on the slots, and the choice of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from griffin.engine.batch import Batch
from griffin.engine.choosing import choose, logits_of
from griffin.engine.request import End, Event
from griffin.engine.row import Row
from griffin.model import Griffin, Marks

Chosen = list[tuple[Row, Event | End]]


class Runner(Protocol):
    """What an engine asks to read prompts and to step; one caller at a time, no gradients.

    steps: calls of the model that moved running rows on.
    Between two of these calls the engine lets rows enter, leave and change their slots. A runner
    may have read or chosen more than it has handed out; that is its own concern until `settle`.
    """

    steps: int

    def read(self, batch: Batch, row: Row, tokens: Tensor, marks: Marks | None = None) -> Tensor:
        """Let a row's slot read a piece of its prompt (1, T); return the last hidden (1, D).

        marks: filled with the states on the way, as `Griffin.trunk` does.
        """
        ...

    def unembed(self, hidden: Tensor, rows: Sequence[Row]) -> Tensor:
        """Turn hidden states (n, D) into logits (n, V), each for the choice of a row."""
        ...

    def step(self, batch: Batch) -> Chosen:
        """Choose tokens for running rows, at most one a row, some row's at least.

        What concerns a single row is an End of it. An error that is raised leaves unknown how far
        each running row was changed, and the engine ends them all.
        """
        ...

    def settle(self, batch: Batch, row: Row) -> None:
        """Let the slot of a running row hold what has read all but the last token handed out.

        Before its state is copied or kept. Nothing else that was read ahead for it is used.
        """
        ...


class ModelRunner:
    """A Runner that calls the model once for every token of the running rows."""

    def __init__(self, model: Griffin) -> None:
        self.steps = 0
        self._model = model

    def read(self, batch: Batch, row: Row, tokens: Tensor, marks: Marks | None = None) -> Tensor:
        return self._call(batch, batch.slot(row), tokens, [row], marks)

    def unembed(self, hidden: Tensor, rows: Sequence[Row]) -> Tensor:
        return logits_of(self._model, hidden, rows)

    def step(self, batch: Batch) -> Chosen:
        rows = list(batch.running)
        logits = self._logits(batch, rows)
        self.steps += 1
        return [(row, choose(row, line)) for row, line in zip(rows, logits, strict=True)]

    def settle(self, batch: Batch, row: Row) -> None:
        """Nothing: no slot is ever ahead."""

    def _logits(self, batch: Batch, rows: Sequence[Row]) -> Tensor:
        """Let the model read the last token of each running row; return logits (rows, V)."""
        tokens = self._model.tokens([[row.chosen[-1]] for row in rows])
        return self.unembed(self._call(batch, 0, tokens, rows), rows)

    def _call(
        self,
        batch: Batch,
        slot: int,
        tokens: Tensor,
        rows: Sequence[Row],
        marks: Marks | None = None,
    ) -> Tensor:
        """Let the model read tokens (rows, T) in neighbouring slots; return hidden (rows, D)."""
        slots, adapters = batch.slots, [row.ticket.adapter for row in rows]
        state = slots.view(slot, len(tokens))
        hidden, state = self._model.trunk(
            tokens, state, donate=True, adapters=adapters, marks=marks
        )
        slots.store(slot, state)
        return hidden[:, -1]
