"""The recurrence as it is written in the paper: one step of a loop per token."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_scan(x: Tensor, a: Tensor, h0: Tensor | None) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(x.dtype, torch.float32)
    h = x.new_zeros(x.shape[0], x.shape[2], dtype=wide) if h0 is None else h0.to(wide)
    every = []
    for t in range(x.shape[1]):
        h = a[:, t].to(wide) * h + x[:, t].to(wide)
        every.append(h)
    return torch.stack(every, dim=1).to(x.dtype), h
