"""The table of layouts; packing and unpacking by it."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.packed_linear.bf16 import BF16
from griffin.ops.packed_linear.int2 import INT2
from griffin.ops.packed_linear.int3 import INT3
from griffin.ops.packed_linear.int4 import INT4
from griffin.ops.packed_linear.int8 import INT8
from griffin.ops.packed_linear.packed import PANEL, SLICE, Layout, Packed

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (BF16, INT8, INT4, INT2, INT3)}


def get_layout(format: str) -> Layout:
    """Return a format's layout. Raises ValueError for an unknown one and lists those there are."""
    if format not in LAYOUTS:
        raise ValueError(f"no packed format {format!r}; there are {', '.join(LAYOUTS)}")
    return LAYOUTS[format]


def pack(weight: Tensor, format: str) -> Packed:
    """Pack weights (O, I), rounding each to the nearest value the format has.

    bf16: exact for bfloat16 weights.
    int8: one scale an output row, largest magnitude / 127.
    int4: a scale for 32 inputs of a row, so that the value of largest magnitude is exactly -8
          steps.
    int2: a scale for 32 inputs of a row, so that their largest magnitude is exactly 3 of it.
    int3: the same, so that it is exactly 3.5 of it.
    Raises ValueError for a format that does not exist and for shapes that cannot be packed.
    """
    layout = get_layout(format)
    if weight.dim() != 2 or 0 in weight.shape or not weight.is_floating_point():
        raise ValueError(
            f"weights must be a floating-point (O, I) matrix, not {tuple(weight.shape)}"
            f" {weight.dtype}"
        )
    return layout.pack(weight)


def unpack(packed: Packed, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the weights (O, I) that a product with `packed` multiplies by, rounded to `dtype`.

    Exact for bf16 in every dtype from bfloat16 up; for the integer formats scale times value in
    float32.
    """
    rows, inputs = packed.out_features, packed.in_features
    out = torch.empty(rows, inputs, dtype=dtype, device=packed.data.device)
    for first in range(0, rows, SLICE):
        last = min(packed.data.shape[0], (first + SLICE) // PANEL)
        some = unpack_rows(packed, first // PANEL, last)
        out[first : first + SLICE] = some[: rows - first, :inputs]
    return out


def unpack_rows(packed: Packed, first: int, last: int) -> Tensor:
    """Return panels first..last-1 as float32 ((last - first) * 16, inputs with padding)."""
    beside = None if packed.low is None else packed.low[first:last]
    if packed.scale is not None:
        beside = packed.scale[first * PANEL : last * PANEL]
    return get_layout(packed.format).unpack(packed.data[first:last], beside)
