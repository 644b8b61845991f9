"""int8: a scale for each output row, values from -127 to 127."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops import Packed
from griffin.ops.packed_linear import pack_int8, round_int8
from griffin.quant.format import Format, Grid

_BLOCK = 1 << 18  # weights rounded at once: they stay in the processor's caches


def quantize(weight: Tensor) -> Packed:
    """Round weights (O, I): the largest magnitude of a row is 127 steps."""
    values = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scales = torch.empty(weight.shape[0], device=weight.device)
    at_once = max(1, _BLOCK // weight.shape[1])
    for first in range(0, weight.shape[0], at_once):
        rows = slice(first, first + at_once)
        values[rows], scales[rows] = round_int8(weight[rows])
    return pack_int8(values, scales)


def _scales(weight: Tensor, importance: Tensor) -> Tensor:
    # At 127 steps clipping the largest value costs more than a finer grid gains, whatever the
    # importance.
    return weight.abs().amax(0) / 127


def _pack(steps: Tensor, scales: Tensor) -> Packed:
    return pack_int8(steps.to(torch.int8), scales[:, 0])


INT8 = Format(
    "int8", "8 bits, a float32 scale an output row", quantize, Grid(None, -127, 127, _scales, _pack)
)
