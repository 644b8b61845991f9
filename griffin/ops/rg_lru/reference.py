"""The RG-LRU token by token and block by block, as the paper's equations (1) to (4) state it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from griffin.ops.rg_lru import DECAY_SCALE, MAX_SQRT_GRADIENT, Gate


def rg_lru(
    x: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    segment_pos: Tensor,
    h0: Tensor | None,
) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(x.dtype, torch.float32)
    x32 = x.to(wide)
    h = x32.new_zeros(x.shape[0], x.shape[2]) if h0 is None else h0.to(wide)
    rate = functional.softplus(recurrent_param.to(wide))
    every = []
    for t in range(x.shape[1]):
        i = torch.sigmoid(blocks(x32[:, t], input_gate))
        r = torch.sigmoid(blocks(x32[:, t], recurrence_gate))
        log_a = -DECAY_SCALE * r * rate
        scale = _clipped_sqrt(-torch.expm1(2 * log_a))
        position = segment_pos[:, t, None]
        start = i * x32[:, t]
        step = torch.exp(log_a) * h + scale * start
        h = torch.where(position == 0, start, torch.where(position < 0, h, step))
        every.append(h)
    return torch.stack(every, dim=1).to(x.dtype), h


def blocks(x: Tensor, gate: Gate) -> Tensor:
    """Return a gate of x (B, E) before its sigmoid, block by block."""
    parts = x.unflatten(-1, gate.bias.shape).unbind(-2)
    out = [
        p @ w.to(x.dtype) + b.to(x.dtype)
        for p, w, b in zip(parts, gate.weight, gate.bias, strict=True)
    ]
    return torch.cat(out, dim=-1)


def _clipped_sqrt(v: Tensor) -> Tensor:
    """sqrt(v) whose gradient 1 / (2 sqrt(v)) stops growing at 1000: a straight line carries it."""
    slope = 0.5 * v.detach().clamp_min((0.5 / MAX_SQRT_GRADIENT) ** 2).rsqrt()
    return v.detach().sqrt() + slope * (v - v.detach())
