"""The step as the ops that have it anyway; rows that do not run are computed and left out."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.causal_conv import causal_conv
from griffin.ops.gated_gelu import gated_gelu
from griffin.ops.live import write_live
from griffin.ops.rg_lru import Gate, rg_lru


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
    rows, at = x.shape[0], position[:, None]
    before, h0 = conv[:rows], lru[:rows]
    for part, state in zip(kept or (), (before, h0), strict=False):
        write_live(state, live, part)
    u, left = causal_conv(x[:, None], conv_weight, conv_bias, at, before)
    h, last = rg_lru(u, input_gate, recurrence_gate, recurrent_param, at, h0)
    if live is not None:
        runs = (torch.arange(rows, device=x.device) < live)[:, None]
        left, last = torch.where(runs[:, :, None], left, before), torch.where(runs, last, h0)
    conv[:rows], lru[:rows] = left, last
    return gated_gelu(gate, h[:, 0])
