"""Root-mean-square normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops import kernels
from griffin.ops.dispatch import natively


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale x to a root mean square of one, times (1 + weight).

    x: (..., D); weight: (D,), centred at zero as the checkpoints store it. Returns x.dtype;
    computed in float32 or wider, rounded once. Raises ValueError for a weight of another shape.
    RecurrentGemma's reference code; Zhang and Sennrich (arXiv:1910.07467).
    """
    shape = x.shape
    if not shape or weight.shape != shape[-1:]:
        raise ValueError(
            f"weight must be (D,) = {tuple(x.shape[-1:])} for x {tuple(x.shape)}, not"
            f" {tuple(weight.shape)}"
        )
    if natively(x, weight):
        y = kernels.fresh(x)
        width = shape[-1]
        kernels.call("norm", x.dtype, (x.numel() // max(width, 1), width), (x, weight, y), eps)
        return y
    wide = torch.promote_types(x.dtype, torch.float32)
    x32 = x.to(wide)
    scale = torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)
    return (x32 * scale * (1 + weight.to(wide))).to(x.dtype)
