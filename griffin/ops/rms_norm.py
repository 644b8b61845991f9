"""Root-mean-square normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops import native
from griffin.ops.dispatch import natively


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale x to a root mean square of one, times (1 + weight).

    x: (..., D); weight: (D,), centred at zero as the checkpoints store it. Returns x.dtype;
    computed in float32 or wider, rounded once. RecurrentGemma's reference code; Zhang and Sennrich
    (arXiv:1910.07467).
    """
    if natively(x, weight):
        x, weight = x.contiguous(), weight.contiguous()
        y = torch.empty_like(x)
        rows, width = x.numel() // max(x.shape[-1], 1), x.shape[-1]
        at = x.data_ptr(), weight.data_ptr(), eps, y.data_ptr()
        native.module().norm(native.TYPES[x.dtype], rows, width, *at, torch.get_num_threads())
        return y
    wide = torch.promote_types(x.dtype, torch.float32)
    x32 = x.to(wide)
    scale = torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)
    return (x32 * scale * (1 + weight.to(wide))).to(x.dtype)
