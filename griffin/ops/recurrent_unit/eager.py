"""The unit as one op after the other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from griffin.ops.causal_conv import causal_conv
from griffin.ops.linear import block_linear
from griffin.ops.rg_lru import DECAY_SCALE, Gate, rg_lru


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
    # The product as a sum of logarithms; a document that starts makes it zero.
    rate = functional.softplus(recurrent_param.to(last.dtype))
    log_a = torch.sigmoid(block_linear(u, *recurrence_gate)) * rate * -DECAY_SCALE
    position = segment_pos[:, :, None]
    decay = log_a.masked_fill(position < 0, 0.0).sum(1).exp()
    return h, left, last, decay.masked_fill((position == 0).any(1), 0.0)
