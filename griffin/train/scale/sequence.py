"""A row split over ranks: each reads a piece of it, all at once, layer by layer.

What a piece needs of the tokens left of it is a layer's state before it (griffin/model/left.py):
the last inputs of the convolution, h, and the last keys and values. Edges, the last few tokens of
other pieces, go from rank to rank, from as many as it takes. h is not waited for: every rank reads
its piece from nothing, which gives end, and multiplies its decays; h after it is then decay times h
before it, plus end. All ranks tell these two numbers a channel to those on their right, and each
puts together what stands left of it. Gradients take the same ways back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed import ProcessGroup, broadcast

from griffin import ops
from griffin.model import AttentionState, Griffin, RecurrentState, State, StateShape
from griffin.model.config import GriffinConfig
from griffin.model.left import Carry
from griffin.train.data.rows import TrainBatch
from griffin.train.loss import row_nats
from griffin.train.objective import Objective
from griffin.train.scale.exchange import exchange


class SplitObjective(Objective):
    """The objective of rows that the ranks of a group read together, an equal piece each.

    `forward` takes the whole rows, the same ones on every rank, and returns the nats of this rank's
    targets: the loss, and every weight's gradient, is the sum over the ranks. carry: whether the
    state it returns is that after the whole rows, which the last rank sends to the others; it is
    that after the piece otherwise.
    """

    def __init__(
        self,
        model: Griffin,
        group: ProcessGroup,
        dtype: torch.dtype = torch.float32,
        *,
        carry: bool = False,
    ) -> None:
        super().__init__(model, dtype)
        self.group, self.carry = group, carry

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor,
        segment_pos: Tensor,
        mask: Tensor,
        state: State | None = None,
    ) -> tuple[Tensor, State]:
        lengths = cut(tokens.shape[1], self.group.size())
        piece = RowPiece(lengths, self.group.rank(), self.group)
        batch = piece.of(TrainBatch(tokens, targets, segment_pos, mask))
        config, dtype = self.griffin.config, self.griffin.dtype
        before = piece.state(config, batch.segment_pos, dtype, state)
        nats, after = row_nats(
            self.griffin, batch, self.dtype, in_place=True, state=before, left=piece
        )
        after = after.map(Tensor.detach)
        return nats, after.map(self._of_the_last) if self.carry else after

    def _of_the_last(self, tensor: Tensor) -> Tensor:
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        broadcast(tensor, group=self.group, group_src=self.group.size() - 1)
        return tensor


def cut(length: int, ranks: int) -> tuple[int, ...]:
    """Return the tokens of each rank's piece of a row: equal ones, or the first one token longer.

    Raises ValueError if there are more ranks than tokens.
    """
    if length < ranks:
        raise ValueError(f"a row of {length} tokens cannot be split over {ranks} ranks")
    return tuple(length // ranks + (rank < length % ranks) for rank in range(ranks))


@dataclass(frozen=True)
class RowPiece:
    """This rank's place in rows that a group of ranks reads together; a `griffin.model.Left`.

    lengths: tokens of each rank's piece, at least one, the row's first tokens first.
    rank:    which of them is this one's.
    group:   of exactly these ranks.
    """

    lengths: tuple[int, ...]
    rank: int
    group: ProcessGroup

    @property
    def start(self) -> int:
        """Tokens of the row before this piece."""
        return sum(self.lengths[: self.rank])

    def of(self, batch: TrainBatch) -> TrainBatch:
        """Return this rank's part of whole rows."""
        place = slice(self.start, self.start + self.lengths[self.rank])
        parts = (batch.tokens, batch.targets, batch.segment_pos, batch.mask)
        return TrainBatch(*(part[:, place] for part in parts))

    def state(
        self,
        config: GriffinConfig,
        segment_pos: Tensor,
        dtype: torch.dtype,
        before: State | None = None,
    ) -> State:
        """Return the state that `Griffin.trunk` takes beside this as `left`.

        segment_pos: (B, T), positions of this piece. before: the state before the whole rows;
        nothing was read if omitted.
        """
        pos = segment_pos[:, 0].clamp_min(0)
        if before is not None:
            return State(pos, before.layers)
        rows = StateShape.of(config, dtype)
        layers = [[] for _ in rows.kinds]
        for row in rows.rows:  # zeros that take no memory
            zero = torch.zeros((), dtype=row.dtype, device=segment_pos.device)
            layers[row.layer].append(zero.expand(len(segment_pos), *row.shape))
        state = [kind(*tensors) for kind, tensors in zip(rows.kinds, layers, strict=True)]
        return State(pos, state)

    def recurrent(
        self, u: Tensor, segment_pos: Tensor, state: RecurrentState, carry: Carry
    ) -> RecurrentState:
        """Return a recurrent block's state before the piece; see `Left`."""
        reach = state.conv.shape[1]
        edge = self._edge(u, reach)
        cache = torch.cat([state.conv.to(u.dtype), edge], dim=1)[:, edge.shape[1] :]
        # Of the document that goes on in the piece alone: it began `position` tokens ago.
        back = torch.arange(reach, 0, -1, device=u.device)
        cache = cache.where((back <= segment_pos[:, :1])[:, :, None], 0.0)
        decay, end = carry(u, segment_pos, cache)
        return RecurrentState(cache, self._before(decay, end, state.lru))

    def attention(
        self, k: Tensor, v: Tensor, window: ops.Window, state: AttentionState
    ) -> AttentionState:
        """Return an attention block's state before the piece; see `Left`."""
        size = window.size
        edge = self._edge(torch.cat([k[:, -size:], v[:, -size:]], dim=2), size)
        count = edge.shape[1]
        ring = torch.cat([torch.cat(state, dim=2).to(k.dtype), edge], dim=1)
        # How many tokens before the piece the position lies that belongs into each slot.
        back = window.position[:, :1] - window.slot_position
        from_edge = (window.slot_position >= 0) & (back <= count)
        slots = torch.arange(size, device=k.device)
        index = torch.where(from_edge, size + count - back, slots)
        ring = ring.gather(1, index[:, :, None, None].expand(-1, -1, *ring.shape[2:]))
        return AttentionState(*ring.split(k.shape[2], dim=2))

    def _edge(self, x: Tensor, reach: int) -> Tensor:
        """Return the `reach` tokens before this piece, fewer where the row begins, oldest first.

        x: this piece (B, T, ...), or the last `reach` tokens of it. Returns (B, n, ...).
        """
        starts = [sum(self.lengths[:rank]) for rank in range(len(self.lengths))]

        def wants(reader: int, source: int) -> int:
            """How many of the last tokens of a piece another rank's edge holds."""
            missing = reach - (starts[reader] - starts[source] - self.lengths[source])
            return min(max(missing, 0), self.lengths[source]) if source < reader else 0

        ranks = range(len(self.lengths))
        counts = [wants(self.rank, source) for source in ranks]
        one = x[:, 0].numel()
        parts = [x[:, x.shape[1] - wants(reader, self.rank) :] for reader in ranks]
        got = exchange(parts, [count * one for count in counts], self.group)
        return torch.cat(
            [
                part.view(x.shape[0], count, *x.shape[2:])
                for part, count in zip(got, counts, strict=True)
            ],
            dim=1,
        )

    def _before(self, decay: Tensor, end: Tensor, h: Tensor) -> Tensor:
        """Return h before this piece from that before the row; all (B, E)."""
        ranks = range(len(self.lengths))
        pair = torch.stack([decay, end])
        parts = [pair if reader > self.rank else pair[:0] for reader in ranks]
        receives = [pair.numel() if source < self.rank else 0 for source in ranks]
        got = exchange(parts, receives, self.group)
        for part in got[: self.rank]:
            decay, end = part.view_as(pair)
            h = decay * h + end
        # The others are empty; with them h comes from the exchange on every rank.
        return torch.cat([h.reshape(-1), *got[self.rank :]]).view_as(h)
