"""What a format of smaller weights is: how it rounds a matrix, and the grid its values lie on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from griffin.ops import Packed


@dataclass(frozen=True)
class Grid:
    """The values a weight can take: a whole number of steps, times a scale that inputs share.

    group:     inputs of a row that share a scale; None: all of them.
    low, high: the fewest and most steps.
    scales:    (weights (g, O) float32, importance (g,)) -> (O,) float32, each as it is stored;
               importance is how much an error at each input matters.
    pack:      (steps (O, I) int8, scales (O, groups)) -> Packed.
    """

    group: int | None
    low: int
    high: int
    scales: Callable[[Tensor, Tensor], Tensor]
    pack: Callable[[Tensor, Tensor], Packed]

    def steps(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Return the number of steps nearest to each weight, as float32; 0 where the scale is 0."""
        inverse = torch.where(scale == 0, 0, scale.reciprocal())
        # A scale so small that its reciprocal overflows: whatever it stands for is next to nothing.
        inverse.nan_to_num_(posinf=0.0, neginf=0.0)
        return (weight * inverse).round_().clamp_(self.low, self.high)


@dataclass(frozen=True)
class Format:
    """A way to store matrices.

    name:        also of the packed layout that the kernels read.
    description: one line for people.
    quantize:    weights (O, I) -> Packed, each rounded to the nearest value that the format has.
    grid:        None where there is nothing to calibrate.
    """

    name: str
    description: str
    quantize: Callable[[Tensor], Packed]
    grid: Grid | None
