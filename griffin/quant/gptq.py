"""Rounding that knows typical inputs: an error made at one input is repaired at those after it.

GPTQ (arXiv:2210.17323). With inputs x and G the mean of x x^T, the squared error of the product is
(W - Q) G (W - Q)^T. Inputs are rounded one after another; the weights of all later inputs then
change so that they repair the error as well as they can. U, the upper Cholesky factor of the
inverse of G, says how: after rounding input j with an error e, the weights of input k change by
-e U[j, k] / U[j, j].
"""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops import Packed
from griffin.quant.format import Format, Grid

_ROWS = 8192  # rows of a matrix rounded at once; they are independent of each other
_INPUTS = 128  # inputs rounded before the rest of a row is repaired; a multiple of every group


def gptq(weight: Tensor, gram: Tensor, format: Format, damping: float = 0.01) -> Packed:
    """Round weights (O, I) so that their product with typical inputs changes least.

    gram:    (I, I) float32, the mean of x x^T over the inputs x.
    damping: what is added to its diagonal, as a part of its mean; a large one trusts the sample
             less.
    Raises ValueError for a format without a grid and for a gram of another size or with values that
    are not finite.
    """
    grid = format.grid
    inputs = weight.shape[1]
    if grid is None:
        raise ValueError(f"{format.name} has nothing to calibrate")
    if gram.shape != (inputs, inputs) or not bool(torch.isfinite(gram).all()):
        raise ValueError(
            f"gram must be finite ({inputs}, {inputs}) for weights {tuple(weight.shape)}, not "
            f"{tuple(gram.shape)}"
        )
    factor = inverse_factor(gram, damping)
    steps, scales = [], []
    for block in weight.split(_ROWS):
        rounded = _round(block, factor, grid)
        steps.append(rounded[0])
        scales.append(rounded[1])
    return grid.pack(torch.cat(steps), torch.cat(scales))


def inverse_factor(gram: Tensor, damping: float) -> Tensor:
    """Return upper triangular U, U^T U = (gram + damping)^-1, float32, computed in float64."""
    damped = gram.double()
    # Inputs that never differ from zero leave nothing to repair with; the last term keeps them
    # harmless.
    damped.diagonal().add_(damping * damped.diagonal().mean() + torch.finfo(torch.float32).tiny)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True).float()


def _round(weight: Tensor, factor: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return steps (O, I) int8 and scales (O, groups) float32."""
    inputs = weight.shape[1]
    group = grid.group or inputs
    rest = weight.T.float().contiguous()  # (I, O): an input's weights side by side
    importance = factor.diagonal().square().reciprocal()
    steps = torch.empty(rest.shape, dtype=torch.int8, device=weight.device)
    scales = torch.empty(-(-inputs // group), weight.shape[0], device=weight.device)
    for first in range(0, inputs, _INPUTS):
        last = min(first + _INPUTS, inputs)
        errors = torch.empty(last - first, weight.shape[0], device=weight.device)
        for at in range(first, last):
            if at % group == 0:
                part = slice(at, min(at + group, inputs))
                scales[at // group] = grid.scales(rest[part], importance[part])
            scale = scales[at // group]
            count = grid.steps(rest[at], scale)
            steps[at] = count
            error = (rest[at] - count * scale) / factor[at, at]
            errors[at - first] = error
            rest[at + 1 : last].addr_(factor[at, at + 1 : last], error, alpha=-1)
        rest[last:].addmm_(factor[first:last, last:].T, errors, alpha=-1)
    return steps.T.contiguous(), scales.T.contiguous()
