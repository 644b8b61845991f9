"""Activations rounded for int4, int3, int2: a signed byte each, in steps of a group's largest."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from griffin.ops.packed_linear.layouts import get_layout

_LARGEST = 127
_LEAST = 1e-30  # below it a group counts as zeros, so that no step is too small to divide by


def round_activations(x: Tensor, format: str) -> Tensor:
    """Return activations (..., I) as a product with weights of `format` takes them, in x's type.

    int4,
    int3,
    int2:   each group of 32 inputs is rounded to whole steps of its largest magnitude / 127,
            computed in float32; something that is not finite makes its group NaN. The gradient
            passes through.
    others: as they are. (The native int8 kernels round to 15 bits and a sign; the difference is
            below that of float32 sums, so it is not repeated here.)
    """
    group = get_layout(format).activation_group
    if group is None:
        return x
    inputs = x.shape[-1]
    groups = functional.pad(x.detach().float(), (0, -inputs % group)).unflatten(-1, (-1, group))
    largest = groups.abs().amax(-1, keepdim=True)
    inverse = torch.where(largest < _LEAST, 0, _LARGEST / largest)
    step = torch.where(largest < _LEAST, 0, largest / _LARGEST)
    step = torch.where(largest.isfinite(), step, torch.nan)
    rounded = ((groups * inverse).round() * step).flatten(-2)[..., :inputs].to(x.dtype)
    return x + (rounded - x).detach() if x.requires_grad else rounded
