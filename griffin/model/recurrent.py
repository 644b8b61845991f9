"""The recurrent block: two branches, one remembers. Griffin (arXiv:2402.19427), section 2.3."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from griffin import ops
from griffin.model.adapted import base_of
from griffin.model.config import GriffinConfig
from griffin.model.layers import Linear, as_built, gated
from griffin.model.left import Left
from griffin.model.marks import Marks
from griffin.model.packed import PackedLinear
from griffin.model.state import RecurrentState
from griffin.model.trail import Step, Trail
from griffin.ops.rg_lru import Gate


class CausalConv(nn.Module):
    """The depthwise convolution over the last W inputs."""

    def __init__(self, width: int, taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, 1, taps))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(
        self, x: Tensor, segment_pos: Tensor, cache: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return ops.causal_conv(x, self.weight, self.bias, segment_pos, cache)


class RGLRU(nn.Module):
    """The real-gated linear recurrent unit."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        size = width // blocks
        self.recurrent_param = nn.Parameter(torch.empty(width))
        self.input_gate_weight = nn.Parameter(torch.empty(blocks, size, size))
        self.input_gate_bias = nn.Parameter(torch.empty(blocks, size))
        self.recurrent_gate_weight = nn.Parameter(torch.empty(blocks, size, size))
        self.recurrent_gate_bias = nn.Parameter(torch.empty(blocks, size))

    def gates(self) -> tuple[Gate, Gate]:
        """Return the input gate and the recurrence gate."""
        return (
            Gate(self.input_gate_weight, self.input_gate_bias),
            Gate(self.recurrent_gate_weight, self.recurrent_gate_bias),
        )

    def forward(self, x: Tensor, segment_pos: Tensor, h0: Tensor | None) -> tuple[Tensor, Tensor]:
        return ops.rg_lru(x, *self.gates(), self.recurrent_param, segment_pos, h0)


class RecurrentBlock(nn.Module):
    """linear_out(gelu(linear_y(x)) * rg_lru(conv(linear_x(x))))."""

    def __init__(self, config: GriffinConfig) -> None:
        super().__init__()
        self.linear_x = Linear(config.width, config.lru_width)
        self.linear_y = Linear(config.width, config.lru_width)
        self.conv_1d = CausalConv(config.lru_width, config.conv_width)
        self.rg_lru = RGLRU(config.lru_width, config.num_gate_blocks)
        self.linear_out = Linear(config.lru_width, config.width)

    def forward(
        self,
        x: Tensor,
        segment_pos: Tensor,
        state: RecurrentState | None,
        left: Left | None = None,
        marks: Marks | None = None,
    ) -> tuple[Tensor, RecurrentState]:
        u = self.linear_x(x)
        if left is not None:
            assert state is not None
            state = left.recurrent(u, segment_pos, state, self.carry)
        conv, lru = state or (None, None)
        if marks is not None:
            inputs = marks.inputs(u, conv, self.conv_1d.weight.shape[-1])
            u, conv = self.conv_1d(u, segment_pos, conv)
            unit = (*self.rg_lru.gates(), self.rg_lru.recurrent_param, segment_pos, lru)
            u, lru, held = ops.rg_lru_at(u, *unit, marks.at)
            marks.recurrent.append(RecurrentState(inputs, held[0]))
        elif torch.is_grad_enabled() and self._as_built():
            # Beside packed weights training computes what answering does: a last bit that differs
            # may round an activation to another step.
            packed = isinstance(base_of(self.linear_x), PackedLinear)
            weights = self._weights()
            u, conv, lru = ops.recurrent_unit(
                u, *weights, segment_pos, conv, lru, as_without=packed
            )
        else:
            u, conv = self.conv_1d(u, segment_pos, conv)
            u, lru = self.rg_lru(u, segment_pos, lru)
        return gated(self.linear_y(x), u, self.linear_out), RecurrentState(conv, lru)

    def follow(
        self, x: Tensor, steps: Sequence[Step], state: RecurrentState, trail: Trail, number: int
    ) -> Tensor:
        """Read a call's tokens x (n, 1, D) step by step; change the state and write the trail.

        number: of this layer among the recurrent ones.
        """
        u = self.linear_x(x)
        y = torch.empty_like(u)
        kept, begin = trail.inputs[number], 0
        for row, length in enumerate(trail.lengths):
            seen = trail.seen[row]
            if length > 1:
                at = seen + trail.older
                kept[seen:at] = state.conv[row, state.conv.shape[1] - trail.older :]
                kept[at : at + length - 1] = u[begin : begin + length - 1, 0]
            begin += length
        for step in steps:
            conv, lru = state.conv[step.rows], state.lru[step.rows]
            if step.kept is not None:
                trail.h[number].index_copy_(0, step.kept, lru)
            v, conv = self.conv_1d(u[step.tokens], step.position, conv)
            y[step.tokens], lru = self.rg_lru(v, step.position, lru)
            state.conv.index_copy_(0, step.rows, conv)
            state.lru.index_copy_(0, step.rows, lru)
        return gated(self.linear_y(x), y, self.linear_out)

    def carry(self, u: Tensor, segment_pos: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Return decay and end of a piece of a row: its last h is decay * h0 + end, all (B, E).

        u: (B, T, E), the inputs of its convolution; cache: (B, W-1, E), those before them.
        """
        return ops.recurrent_carry(u, *self._weights(), segment_pos, cache)

    def _weights(self) -> tuple[Tensor, Tensor, Gate, Gate, Tensor]:
        """Return those of convolution and unit, as `ops.recurrent_unit` takes them."""
        conv, unit = self.conv_1d, self.rg_lru
        return conv.weight, conv.bias, *unit.gates(), unit.recurrent_param

    def _as_built(self) -> bool:
        """Return whether nobody replaced the convolution or the unit, or watches one of them."""
        return as_built(self.conv_1d, CausalConv) and as_built(self.rg_lru, RGLRU)
