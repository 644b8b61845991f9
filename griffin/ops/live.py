"""Rows that run: one captured graph serves any number of them, told by a number on the device."""

from __future__ import annotations

import torch
from torch import Tensor


def check_live(live: Tensor | None) -> None:
    """Raise ValueError unless a number of live rows is one of int32, where there is one."""
    if live is not None and (live.shape != (1,) or live.dtype != torch.int32):
        raise ValueError(f"live must be (1,) int32, not {tuple(live.shape)} {live.dtype}")


def write_live(y: Tensor, live: Tensor | None, out: Tensor) -> None:
    """Write the first `live` rows of y to out, without waiting for their number."""
    if live is None:
        out.copy_(y)
        return
    lives = torch.arange(len(y), device=y.device) < live
    out.copy_(torch.where(lives.view(-1, *[1] * (y.dim() - 1)), y.to(out.dtype), out))
