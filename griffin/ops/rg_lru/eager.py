"""The RG-LRU over whole sequences: gates as two batched products, then one linear scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from griffin.ops.linear import block_linear
from griffin.ops.linear_scan import linear_scan
from griffin.ops.rg_lru import DECAY_SCALE, MAX_SQRT_GRADIENT, Gate


def rg_lru(
    x: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    segment_pos: Tensor,
    h0: Tensor | None,
) -> tuple[Tensor, Tensor]:
    h, last = _wide(x, input_gate, recurrence_gate, recurrent_param, segment_pos, h0)
    return h.to(x.dtype), last


def rg_lru_at(
    x: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    segment_pos: Tensor,
    h0: Tensor | None,
    at: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    h, last = _wide(x, input_gate, recurrence_gate, recurrent_param, segment_pos, h0)
    return h.to(x.dtype), last, torch.stack([h[:, each - 1] for each in at], 1)


def _wide(
    x: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    segment_pos: Tensor,
    h0: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return every h in float32 or wider, and the last one."""
    wide = torch.promote_types(x.dtype, torch.float32)
    gate_i = block_linear(x, *input_gate)
    gate_r = block_linear(x, *recurrence_gate)
    rate = functional.softplus(recurrent_param.to(wide))
    a, inputs = _Decay.apply(x.to(wide), gate_i, gate_r, rate, segment_pos)  # pyright: ignore
    return linear_scan(inputs, a, h0)


class _Decay(torch.autograd.Function):
    """From gates before their sigmoid to the decay a and the scaled input of the scan.

    Written out so that training keeps five tensors instead of autograd's dozen: everything else is
    made again from the gates.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gate_i: Tensor, gate_r: Tensor, rate: Tensor, segment_pos: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, gate_i, gate_r, rate, segment_pos)
        log_a = torch.sigmoid(gate_r).mul_(rate).mul_(-DECAY_SCALE)
        scale = torch.expm1(2 * log_a).neg_().sqrt_()
        inputs = torch.sigmoid(gate_i).mul_(x)
        position = segment_pos[:, :, None]
        start, pad = position == 0, position < 0
        inputs.mul_(scale.masked_fill_(start, 1.0).masked_fill_(pad, 0.0))
        a = log_a.exp_().masked_fill_(start, 0.0).masked_fill_(pad, 1.0)
        return a, inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        da, dinputs = grads
        x, gate_i, gate_r, rate, segment_pos = ctx.saved_tensors
        position = segment_pos[:, :, None]
        start, pad = position == 0, position < 0
        i, r = torch.sigmoid(gate_i), torch.sigmoid(gate_r)
        log_a = r * rate * -DECAY_SCALE
        one_less = torch.expm1(2 * log_a).neg_()  # 1 - a^2
        scale = one_less.sqrt()

        # d log_a, through a and through the square root, neither of which a start or a pad has.
        dscale = dinputs * i * x
        slope = one_less.mul_(4).clamp_min_(MAX_SQRT_GRADIENT**-2).rsqrt_()
        dlog_a = da * log_a.exp() - dscale * slope * 2 * (2 * log_a).exp()
        dlog_a.masked_fill_(start | pad, 0.0)

        drive = dinputs * scale.masked_fill_(start, 1.0).masked_fill_(pad, 0.0)
        dx = drive * i
        dgate_i = drive.mul_(x).mul_(i).mul_(1 - i)
        dr = dlog_a * -DECAY_SCALE
        drate = (dr * r).sum((0, 1))
        dgate_r = dr.mul_(rate).mul_(r).mul_(1 - r)
        return dx, dgate_i, dgate_r, drate, None
