"""What int4 and int3 share: a scale for 32 inputs of a row, fitted some rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from griffin.ops.packed_linear.groups import GROUP

_BLOCK = 1 << 16  # weights rounded at once: they stay in the processor's caches


def quantize_groups(
    weight: Tensor,
    split: Callable[[Tensor], Tensor],
    fit: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """Round weights (O, I); return values (O, I) uint8 and scales (O, I/32) float16.

    split: weights (rows, I) as (rows, I/32, 32) float32, the last group padded.
    fit:   groups (32, n) as values (32, n) uint8 and scales (n,).
    """
    rows, inputs = weight.shape
    groups = -(-inputs // GROUP)
    values = torch.empty(rows, inputs, dtype=torch.uint8, device=weight.device)
    scales = torch.empty(rows, groups, dtype=torch.float16, device=weight.device)
    at_once = max(1, _BLOCK // inputs)
    for first in range(0, rows, at_once):
        some = slice(first, first + at_once)
        nearest, scale = fit(split(weight[some]).view(-1, GROUP).T.contiguous())
        scales[some] = scale.view(-1, groups)
        values[some] = nearest.T.reshape(-1, groups * GROUP)[:, :inputs]
    return values, scales
