"""Packed weights row by row, as an embedding reads them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from griffin.ops import native
from griffin.ops.dispatch import natively
from griffin.ops.packed_linear.layouts import get_layout, unpack
from griffin.ops.packed_linear.packed import PANEL, Packed

_LOOKUPS = 512  # rows unpacked at once: their panels are unpacked whole, 16 rows for each


def look_up(packed: Packed, ids: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """Return rows `ids` of packed weights in `dtype`, times `scale`: an embedding.

    ids: (N,) int64, in range. Returns (N, I); each weight is rounded to `dtype`, and its product
         again.
    """
    like = packed.data.new_empty(len(ids), packed.in_features, dtype=dtype)
    if dtype != torch.float64 and natively(like):
        ids = ids.contiguous()
        where = ids.data_ptr(), len(ids), scale, native.TYPES[dtype], like.data_ptr()
        native.module().look_up(packed_matrix(packed, None), *where)
        return like
    rows = [_rows(packed, some, dtype) for some in ids.split(_LOOKUPS)]
    return torch.cat(rows) * scale if rows else like


def _rows(packed: Packed, ids: Tensor, dtype: torch.dtype) -> Tensor:
    panels, scale = ids // PANEL, packed.scale
    some = packed._replace(
        data=packed.data[panels],
        scale=None if scale is None else scale.view(-1, PANEL)[panels].flatten(),
        out_features=PANEL * len(ids),
    )
    each = torch.arange(len(ids), device=ids.device)
    return unpack(some, dtype)[each * PANEL + ids % PANEL]


def packed_matrix(packed: Packed, bias: Tensor | None) -> Any:
    """Return the native module's view of packed weights and a bias; it does not keep them alive."""
    data, scale, format, out_features, in_features = packed
    number = get_layout(format).number
    return native.matrix(number, data, scale, out_features, in_features, bias)
