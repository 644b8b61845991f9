"""Packed weights row by row, as an embedding reads them."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops import kernels
from griffin.ops.dispatch import natively, on_one_device
from griffin.ops.packed_linear.layouts import unpack
from griffin.ops.packed_linear.matrix import check_packed, laid_out, packed_matrix
from griffin.ops.packed_linear.packed import PANEL, Packed
from griffin.ops.positions import WHOLE

_LOOKUPS = 512  # rows unpacked at once: their panels are unpacked whole, 16 rows for each


def look_up(packed: Packed, ids: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """Return rows `ids` of packed weights in `dtype`, times `scale`: an embedding.

    ids: (N,) int64. Returns (N, I); each weight is rounded to `dtype`, and its product again.
    Raises ValueError for ids that are no whole numbers, or out of range (looked for on the CPU).
    """
    if ids.dim() != 1 or ids.dtype not in WHOLE:
        raise ValueError(f"ids must be whole numbers (N,), not {tuple(ids.shape)} {ids.dtype}")
    check_packed(packed)
    on_one_device(packed.data, packed.scale, ids)
    ids = ids.long()
    if ids.is_cpu and ids.numel() and not torch.compiler.is_compiling():
        low, high = (int(i) for i in ids.aminmax())
        if low < 0 or high >= packed.out_features:
            raise ValueError(
                f"ids reach from {low} to {high}; there are rows 0 to {packed.out_features - 1}"
            )
    like = packed.data.new_empty(len(ids), packed.in_features, dtype=dtype)
    if dtype != torch.float64 and natively(like):
        packed = laid_out(packed)
        matrix = packed_matrix(packed, None)
        kernels.call("look_up", dtype, like.shape, (ids, like), matrix, scale)
        return like
    rows = [_rows(packed, some, dtype) for some in ids.split(_LOOKUPS)]
    return torch.cat(rows) * scale if rows else like


def _rows(packed: Packed, ids: Tensor, dtype: torch.dtype) -> Tensor:
    some = packed.panels(ids // PANEL, PANEL * len(ids))
    each = torch.arange(len(ids), device=ids.device)
    return unpack(some, dtype)[each * PANEL + ids % PANEL]
