"""int3: a scale in half precision for 32 inputs of a row, eight values; 3.5 bits a weight.

Its upper two bits are int2 with the same scale. Too few for a model, enough for a head's preview:
two say which rows are worth reading, three what all others weigh together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops import Packed
from griffin.ops.packed_linear import nearest_int3, pack_int3
from griffin.ops.packed_linear.groups import in_groups
from griffin.quant.grouped import quantize_groups

# Tried as shares of the scale that puts the largest magnitude on the largest value.
_CANDIDATES = (1.0, 0.9, 0.8, 0.7, 0.6)


def quantize(weight: Tensor) -> Packed:
    """Round weights (O, I), the scale of each group chosen for the least squared error."""
    return pack_int3(*quantize_groups(weight, in_groups, _fit))


def _fit(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = best_scales(weight).clamp_max_(torch.finfo(torch.float16).max).to(torch.float16)
    return nearest_int3(weight, scale.float()), scale


def best_scales(weight: Tensor) -> Tensor:
    """Return for each column of weights (g, O) float32 the scale of least squared error, (O,).

    Each candidate says which value each weight takes; the scale that is best for these follows.
    """
    size = weight.abs()
    extreme = size.amax(0) / 3.5
    best, least = torch.zeros_like(extreme), torch.full_like(extreme, torch.inf)
    for factor in _CANDIDATES:
        step = (factor * extreme).clamp_min_(1e-30)  # of zeros alone
        value = (size / step).floor_().clamp_max_(3).add_(0.5)
        product = (value * size).sum(0)
        scale = product / value.square().sum(0)
        # The squared error, less the squares of the weights, always the same.
        error = -product * scale
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best
