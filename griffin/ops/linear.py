"""A matrix product whose rows do not feel each other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Below this many rows, torch takes other code (a matrix-vector product), which sums in another order. From
# here on each row has the same bits whatever the number of rows: then a sequence answers alike alone or in
# company, and reading token by token equals reading at once.
MIN_ROWS = {torch.float32: 8, torch.float64: 8, torch.bfloat16: 2, torch.float16: 2}


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x weight^T + bias: x (..., I), weight (O, I), bias (O,) -> (..., O) in x.dtype."""
    rows = x.numel() // x.shape[-1]
    least = MIN_ROWS.get(x.dtype, 1)
    if rows >= least:
        return functional.linear(x, weight, bias)
    flat = x.reshape(rows, x.shape[-1])
    padded = functional.pad(flat, (0, 0, 0, least - rows))
    return functional.linear(padded, weight, bias)[:rows].reshape(*x.shape[:-1], weight.shape[0])


def block_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Multiply by a block-diagonal matrix: x (..., G I), weight (G, I, O), bias (G, O) -> (..., G O).

    Returns float32 or wider: the gates of the RG-LRU are not rounded before their nonlinearity.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    blocks, size, out = weight.shape
    rows = x.numel() // x.shape[-1]
    flat = x.reshape(rows, blocks, size).to(wide)
    if rows < (least := MIN_ROWS[wide]):
        flat = functional.pad(flat, (0, 0, 0, 0, 0, least - rows))
    with torch.autocast(x.device.type, enabled=False):  # which would round them to bfloat16
        y = torch.baddbmm(bias.to(wide)[:, None], flat.transpose(0, 1), weight.to(wide))
    return y[:, :rows].transpose(0, 1).reshape(*x.shape[:-1], blocks * out)
