"""The preview whole, and of the matrix the panels of each row."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.packed_linear.eager import packed_linear
from griffin.ops.packed_linear.packed import PANEL, Packed
from griffin.ops.screened_linear.reference import best_panels, outputs_of


def screened_linear(x: Tensor, preview: Packed, packed: Packed, panels: int) -> Tensor:
    y = packed_linear(x, preview, None, torch.float32)
    rows, outputs = x.reshape(-1, x.shape[-1]), y.view(-1, y.shape[-1])
    for row, values, chosen in zip(rows, outputs, best_panels(outputs, panels), strict=True):
        some = packed.panels(chosen, PANEL * int(chosen.sum()))
        exact = packed_linear(row, some, None, torch.float32)
        where = outputs_of(chosen, len(values))
        values[where] = exact[: int(where.sum())]  # the last panel may be longer than the matrix
    return y
