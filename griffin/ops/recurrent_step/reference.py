"""The step as one op after the other, each as its equation states it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from griffin.ops.causal_conv.reference import causal_conv
from griffin.ops.rg_lru import Gate
from griffin.ops.rg_lru.reference import rg_lru


def recurrent_step(
    x: Tensor,
    gate: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    position: Tensor,
    conv: Tensor,
    lru: Tensor,
    live: Tensor | None,
    kept: tuple[Tensor, Tensor] | None,
) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    out = torch.empty_like(x)
    for b in range(x.shape[0] if live is None else int(live)):
        row, at = slice(b, b + 1), position[b : b + 1, None]
        if kept is not None:
            kept[0][row], kept[1][row] = conv[row], lru[row]
        u, left = causal_conv(x[row, None], conv_weight, conv_bias, at, conv[row])
        h, last = rg_lru(u, input_gate, recurrence_gate, recurrent_param, at, lru[row])
        conv[row], lru[row] = left, last
        y = gate[row].to(wide)
        inner = math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)
        out[row] = (0.5 * y * (1 + torch.tanh(inner)) * h[:, 0].to(wide)).to(x.dtype)
    return out
