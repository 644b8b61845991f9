"""The unit as one op after the other, each token by token."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from griffin.ops.causal_conv.reference import causal_conv
from griffin.ops.rg_lru import DECAY_SCALE, Gate
from griffin.ops.rg_lru.reference import blocks, rg_lru


def recurrent_unit(
    x: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    segment_pos: Tensor,
    cache: Tensor,
    h0: Tensor,
    product: bool,
    as_without: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    u, left = causal_conv(x, conv_weight, conv_bias, segment_pos, cache)
    h, last = rg_lru(u, input_gate, recurrence_gate, recurrent_param, segment_pos, h0)
    if not product:
        return h, left, last, None
    rate = functional.softplus(recurrent_param.to(last.dtype))
    decay = torch.ones_like(last)
    for t in range(x.shape[1]):
        r = torch.sigmoid(blocks(u[:, t].to(last.dtype), recurrence_gate))
        position = segment_pos[:, t, None]
        less = torch.where(position == 0, 0.0, torch.exp(-DECAY_SCALE * r * rate) * decay)
        decay = torch.where(position < 0, decay, less)
    return h, left, last, decay
