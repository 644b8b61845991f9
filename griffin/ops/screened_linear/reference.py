"""Both products whole, and the exact one where it counts."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.packed_linear.packed import PANEL, Packed
from griffin.ops.packed_linear.reference import packed_linear


def screened_linear(x: Tensor, preview: Packed, packed: Packed, panels: int) -> Tensor:
    y = packed_linear(x, preview, None, torch.float32)
    exact = packed_linear(x, packed, None, torch.float32)
    return torch.where(outputs_of(best_panels(y, panels), y.shape[-1]), exact, y)


def best_panels(y: Tensor, panels: int) -> Tensor:
    """Return which panels (..., O / 16) hold the largest of y (..., O), so many of them, bool."""
    padded = torch.nn.functional.pad(y, (0, -y.shape[-1] % PANEL), value=-torch.inf)
    largest = padded.unflatten(-1, (-1, PANEL)).amax(-1)
    order = largest.argsort(dim=-1, descending=True, stable=True)[..., :panels]
    return torch.zeros_like(largest, dtype=torch.bool).scatter_(-1, order, True)


def outputs_of(chosen: Tensor, outputs: int) -> Tensor:
    """Return which outputs (..., O) lie in panels (..., O / 16), bool."""
    return chosen.repeat_interleave(PANEL, -1)[..., :outputs]
