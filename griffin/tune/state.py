"""A learnt initial state: its parameters beside a frozen model, and the loss of texts behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from griffin.model import Griffin, State, TunedState
from griffin.train.data.rows import TrainBatch
from griffin.train.loss import row_nats
from griffin.train.objective import Objective

# Texts are read together while the longest has at most so many times the tokens of the shortest.
_ALIKE = 1.5


class StateLearner(nn.Module):
    """The tensors of a tuned state as parameters, float32 (float64 of a float64 model).

    begun: what they begin as (`TunedState.begin`).
    """

    def __init__(self, begun: TunedState) -> None:
        super().__init__()
        self._begun = begun
        for name, tensor in begun.tensors().items():
            if tensor.numel():
                wide = torch.promote_types(tensor.dtype, torch.float32)
                self.register_parameter(name, nn.Parameter(tensor.detach().to(wide, copy=True)))

    def forward(self, batch: int, dtype: torch.dtype) -> State:
        """Return the state of so many texts, through which gradients flow."""
        return self.tuned(dict(self.named_parameters())).as_state(batch, dtype)

    def tuned(self, tensors: Mapping[str, Tensor]) -> TunedState:
        """Return the tuned state of these tensors, the parameters' or a copy of them."""
        return replace(self._begun, **dict(tensors))


class StateObjective(Objective):
    """A frozen model, a learnt state, and the loss of packed rows, each text behind the state.

    Every document of a row is read as a row of its own, from its second token on at position n, so
    that it begins as a prompt does. What nothing of the state reaches is read as the model alone
    reads it: BOS, after which the first word is as likely as ever, and pieces of documents that do
    not begin with it.
    bos: the id for which the state stands.
    """

    def __init__(
        self, model: Griffin, learner: StateLearner, bos: int, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(model, dtype)
        self.learner = learner
        self.bos = bos

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor,
        segment_pos: Tensor,
        mask: Tensor,
        state: State | None = None,
    ) -> tuple[Tensor, State]:
        """Return the summed nats of the targets, and the tuned state of one text.

        tokens to mask are as in TrainBatch. state: none; ValueError for one, because rows that go
        on where others ended do not begin behind the tuned state.
        """
        if state is not None:
            raise ValueError("rows behind a tuned state begin documents; take train.carry out")
        model, dtype = self.griffin, self.griffin.dtype
        nats = torch.stack([each.sum() for each in self.learner.parameters()]).sum() * 0.0
        behind = _behind(tokens, targets, segment_pos, mask, self.bos)
        outside = mask & ~behind.reached
        if bool(outside.any()):
            with torch.no_grad():
                batch = TrainBatch(tokens, targets, segment_pos, outside)
                nats = nats + row_nats(model, batch, self.dtype)[0]
        for batch in behind.batches(self.learner(1, dtype).pos):
            read = self.learner(len(batch.tokens), dtype)
            nats = nats + row_nats(model, batch, self.dtype, state=read)[0]
        return nats, self.learner(1, dtype).map(Tensor.detach)


class _Behind:
    """Documents of packed rows that stand behind the state, without their BOS.

    reached: (R, L) bool, the places in the rows that they are.
    """

    def __init__(self, batch: TrainBatch, places: list[tuple[int, int, int]]) -> None:
        self._batch, self._places = batch, sorted(places, key=lambda place: place[2] - place[1])
        self.reached = torch.zeros_like(batch.mask)
        for row, start, end in places:
            self.reached[row, start:end] = True

    def batches(self, pos: Tensor) -> list[TrainBatch]:
        """Return them as rows padded on the right, those of like lengths together.

        pos: (1,), where they begin.
        """
        groups: list[list[tuple[int, int, int]]] = []
        for place in self._places:
            length = place[2] - place[1]
            if not groups or length > _ALIKE * (groups[-1][0][2] - groups[-1][0][1]):
                groups.append([])
            groups[-1].append(place)
        return [self._laid(group, pos) for group in groups]

    def _laid(self, group: list[tuple[int, int, int]], pos: Tensor) -> TrainBatch:
        longest = group[-1][2] - group[-1][1]

        def laid(rows: Tensor) -> Tensor:
            made = rows.new_zeros(len(group), longest)
            for number, (row, start, end) in enumerate(group):
                made[number, : end - start] = rows[row, start:end]
            return made

        tokens, targets, mask = map(
            laid, (self._batch.tokens, self._batch.targets, self._batch.mask)
        )
        steps = torch.arange(longest, device=tokens.device)
        return TrainBatch(tokens, targets, (pos[:, None] + steps).expand_as(tokens), mask)


def _behind(
    tokens: Tensor, targets: Tensor, segment_pos: Tensor, mask: Tensor, bos: int
) -> _Behind:
    """Find the documents that begin in these rows, as far as something of them is counted."""
    places: list[tuple[int, int, int]] = []
    for row in range(len(tokens)):
        starts = (segment_pos[row] == 0).nonzero()[:, 0].tolist()
        for start, end in zip(starts, (*starts[1:], tokens.shape[1]), strict=True):
            counted = mask[row, start + 1 : end].nonzero()[:, 0]
            if len(counted) and int(tokens[row, start]) == bos:
                places.append((row, start + 1, start + 2 + int(counted[-1])))
    return _Behind(TrainBatch(tokens, targets, segment_pos, mask), places)
