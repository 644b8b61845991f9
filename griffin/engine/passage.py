"""The states on the way of one call: what the prefix cache keeps where a call reads many blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from griffin.engine.crossing import to_host
from griffin.engine.pieces import RecurrentPart, Span, cut_span
from griffin.model import Marks, State
from griffin.model.state import AttentionState


class Passage:
    """What a call reads in one row that runs on, to be cut wherever it has a mark.

    What is cut lies in the host's memory, where all of a call goes in one copy of each kind.

    state: the row before the call; what its window holds is copied, for the call writes over it.
    begin: tokens that the row has read by then.
    marks: after how many tokens of the call. `marks` goes into the call.
    """

    def __init__(self, state: State, begin: int, marks: Sequence[int]) -> None:
        self.marks = Marks(marks)
        self.begin = begin
        rings = [layer for layer in state.layers if isinstance(layer, AttentionState)]
        size = rings[0].k.shape[1] if rings else 0
        self._before = cut_span(state, max(0, begin - size) if rings else begin, begin, begin)
        self._whole: Span | None = None
        self._recurrent: RecurrentPart | None = None

    def at(self, mark: int) -> Waypoint:
        """Return the state after so many tokens of the call, which is over."""
        return Waypoint(self, self.marks.at.index(mark))

    def recurrent(self, index: int) -> RecurrentPart:
        """Return the recurrent part at a mark."""
        layers = self.marks.recurrent
        if not layers:
            return RecurrentPart(torch.empty(0, 0, 0), torch.empty(0, 0))
        if self._recurrent is None:
            parts = (torch.stack(column, 1) for column in zip(*layers, strict=True))
            self._recurrent = RecurrentPart(*to_host(*parts))
        return RecurrentPart(*(part[index].clone() for part in self._recurrent))

    def span(self, start: int, stop: int) -> Span:
        """Return keys and values of positions that the row held before or that the call read."""
        if not self.marks.written:
            nothing = torch.empty(0, stop - start, 0, 0)
            return Span(start, stop, nothing, nothing)
        if self._whole is None:
            before, layers = self._before, self.marks.written
            k, v = to_host(
                *(
                    torch.cat([old, torch.stack([layer[which][0] for layer in layers])], dim=1)
                    for which, old in ((0, before.k), (1, before.v))
                )
            )
            self._whole = Span(before.start, before.start + k.shape[1], k, v)
        whole = self._whole
        assert whole.start <= start <= stop <= whole.stop, "a checkpoint reaches further back"
        part = slice(start - whole.start, stop - whole.start)
        return Span(start, stop, whole.k[:, part].clone(), whole.v[:, part].clone())


class Waypoint:
    """A state on the way of a call, as the prefix cache takes it: in parts."""

    def __init__(self, passage: Passage, index: int) -> None:
        self.pos = passage.begin + passage.marks.at[index]
        self._passage, self._index = passage, index

    def recurrent(self) -> RecurrentPart:
        """Return the recurrent part."""
        return self._passage.recurrent(self._index)

    def span(self, start: int, stop: int) -> Span:
        """Return keys and values of the positions [start, stop), copied."""
        return self._passage.span(start, stop)
