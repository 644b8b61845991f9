"""The memory of all sequences under way: one State, whose rows are the slots."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.model import GriffinConfig, State
from griffin.model.decode_step import Stacked, stacked


class Slots:
    """A State of `count` rows at a fixed place in memory. A slot that is free holds zeros.

    Calls of the model work on `view`, a window on neighbouring slots that copies nothing.
    stack: layers of a kind lie in one tensor, `stacked`, as a GPU's steps have them.
    """

    def __init__(
        self,
        config: GriffinConfig,
        count: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        stack: bool = False,
    ) -> None:
        self.count = count
        state = State.zeros(config, count, dtype=dtype, device=device)
        self.stacked: Stacked | None = None
        if stack:
            state, self.stacked = stacked(state)
        self._kinds = [type(layer) for layer in state.layers]
        self._tensors = tensors(state)
        self._places: dict[tuple[int, int], list[Tensor]] = {}

    @staticmethod
    def bytes(config: GriffinConfig, dtype: torch.dtype, count: int = 1) -> int:
        """Return the bytes of `count` slots before there are any: pos, layers, the whole window."""
        row = State.zeros(config, 1, dtype=dtype, device="meta")
        return count * (row.nbytes + row.pos.nbytes)

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self._tensors)

    def view(self, first: int, rows: int = 1) -> State:
        """Return slots first ... first + rows - 1 as a State on the same memory."""
        return self._state(self._at(first, rows))

    def store(self, first: int, state: State) -> None:
        """Keep what a call returned for a view; what it changed in place costs nothing."""
        for place, new in zip(self._at(first, state.batch), tensors(state), strict=True):
            if place is not new:
                place.copy_(new)

    def put(self, slot: int, state: State) -> None:
        """Copy a State of one row into a slot."""
        for place, new in zip(self._at(slot, 1), tensors(state), strict=True):
            place.copy_(new)

    def take(self, slot: int) -> State:
        """Return a copy of a slot that shares nothing."""
        return self._state([t.clone() for t in self._at(slot, 1)])

    def copy(self, source: int, target: int) -> None:
        """Make one slot equal to another."""
        for t in self._tensors:
            t[target].copy_(t[source])

    def swap(self, one: int, other: int) -> None:
        """Exchange two slots, a tensor at a time."""
        if one == other:
            return
        for t in self._tensors:
            kept = t[one].clone()
            t[one].copy_(t[other])
            t[other].copy_(kept)

    def clear(self, first: int, rows: int = 1) -> None:
        """Free slots: nothing of what they held remains."""
        for t in self._tensors:
            t.narrow(0, first, rows).zero_()

    def _at(self, first: int, rows: int) -> list[Tensor]:
        """Return every tensor's part for some slots, made once: a small model's step is short."""
        if (first, rows) not in self._places:
            self._places[first, rows] = [t.narrow(0, first, rows) for t in self._tensors]
        return self._places[first, rows]

    def _state(self, parts: list[Tensor]) -> State:
        pos, *rest = parts
        values = iter(rest)
        return State(pos, [kind(next(values), next(values)) for kind in self._kinds])


def tensors(state: State) -> list[Tensor]:
    """Return every tensor of a state, `pos` first."""
    return [state.pos, *(t for layer in state.layers for t in layer)]
