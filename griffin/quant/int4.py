"""int4: a scale in half precision for 32 inputs of a row, values from -8 to 7; 4.5 bits a weight.

The scale may be negative: the 16 values reach one step further on one side, and that side goes
where the value of largest magnitude is. Of a few scales around it that one is taken whose squared
error is least. A stored minimum for each group (5 bits a weight) was measured too:
docs/quantization.md.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from griffin.ops import Packed
from griffin.ops.packed_linear import pack_int4
from griffin.ops.packed_linear.groups import GROUP
from griffin.quant.format import Format, Grid
from griffin.quant.grouped import quantize_groups

_LOW, _HIGH = -8, 7
# Tried as multiples of the scale that puts the value of largest magnitude on -8 steps; negative
# ones put it on the short side. Each is then moved to the least squares of the steps it gives.
_CANDIDATES = (1.0, 1.05, 0.95, 0.85, -1.14, -1.02, -0.9)


def quantize(weight: Tensor) -> Packed:
    """Round weights (O, I), the scale of each group chosen for the least squared error."""
    return pack_int4(*quantize_groups(weight, _split, _fit))


def _split(weight: Tensor) -> Tensor:
    padded = functional.pad(weight.float(), (0, -weight.shape[1] % GROUP))
    return padded.unflatten(1, (-1, GROUP))


def _fit(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = best_scales(weight)
    return (GRID.steps(weight, scale) - _LOW).to(torch.uint8), scale


def best_scales(weight: Tensor, importance: Tensor | None = None) -> Tensor:
    """Return for each column of weights (g, O) float32 the scale of least error, (O,) float32.

    Scales are values of half precision. importance (g,): by how much a squared error at each input
    counts; equally if omitted.
    """
    extreme = weight.gather(0, weight.abs().argmax(0, keepdim=True))[0]
    weighted = weight if importance is None else weight * importance[:, None]
    best = _stored(extreme / _LOW)
    least = torch.full_like(best, torch.inf)
    for factor in _CANDIDATES:
        steps = GRID.steps(weight, extreme * (factor / _LOW))
        product = (steps * weighted).sum(0)
        square = (
            steps.square_() if importance is None else steps.square_() * importance[:, None]
        ).sum(0)
        scale = _stored(product / square.masked_fill(square == 0, 1))
        # The squared error with these steps and that scale, less the squares of the weights, always
        # the same.
        error = scale * (scale * square - 2 * product)
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best


def _stored(scale: Tensor) -> Tensor:
    """Round to half precision, as it will be read back; beyond its range, to the largest it has."""
    most = torch.finfo(torch.float16).max
    return scale.clamp(-most, most).to(torch.float16).float()


def _pack(steps: Tensor, scales: Tensor) -> Packed:
    return pack_int4((steps - _LOW).to(torch.uint8), scales)


GRID = Grid(GROUP, _LOW, _HIGH, best_scales, _pack)
INT4 = Format("int4", "4.5 bits, a float16 scale for 32 inputs of a row", quantize, GRID)
