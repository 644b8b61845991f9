"""Packed weights as the native module has them: by addresses, looked at before they are taken."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from griffin.ops import kernels, native
from griffin.ops.packed_linear.layouts import get_layout
from griffin.ops.packed_linear.packed import PANEL, Packed

_BIASES = (torch.float32, torch.bfloat16)


def check_packed(packed: Packed) -> None:
    """Raise ValueError unless packed weights are as large and of the types that they say."""
    data, scale, format, out_features, in_features, low = packed
    layout = get_layout(format)
    if out_features < 1 or in_features < 1:
        raise ValueError(f"weights ({out_features}, {in_features}) are empty")
    shape = layout.data_shape(out_features, in_features)
    rows = PANEL * shape[0]
    if data.shape != shape or data.dtype != torch.uint8:
        raise ValueError(
            f"{format} weights ({out_features}, {in_features}) are bytes {shape}, not"
            f" {tuple(data.shape)} {data.dtype}"
        )
    if layout.row_scales != (scale is not None) or (
        scale is not None and (scale.shape != (rows,) or scale.dtype != torch.float32)
    ):
        found = "none" if scale is None else f"{tuple(scale.shape)} {scale.dtype}"
        wanted = f"({rows},) torch.float32" if layout.row_scales else "none"
        raise ValueError(f"the row scales of these {format} weights are {wanted}, not {found}")
    lowest = layout.low_shape(out_features, in_features)
    if (layout.low_bytes > 0) != (low is not None) or (
        low is not None and (low.shape != lowest or low.dtype != torch.uint8)
    ):
        found = "none" if low is None else f"{tuple(low.shape)} {low.dtype}"
        wanted = f"bytes {lowest}" if layout.low_bytes else "none"
        raise ValueError(f"the lowest bits of these {format} weights are {wanted}, not {found}")


def laid_out(packed: Packed) -> Packed:
    """Return packed weights as kernels read them, themselves where they lie so."""
    (data,) = kernels.laid(packed.data)
    scale, low = (t if t is None else kernels.laid(t)[0] for t in (packed.scale, packed.low))
    return packed._replace(data=data, scale=scale, low=low)


def packed_matrix(packed: Packed, bias: Tensor | None) -> Any:
    """Return the native module's view of packed weights and a bias; it does not keep them alive.

    Raises ValueError unless they are whole, in whole panels and on the CPU.
    """
    check_packed(packed)
    data, scale, format, out_features, in_features, low = packed
    for t in (data, scale, low, bias):
        if t is not None and not (t.is_cpu and kernels.lies(t)):
            raise ValueError(f"{format} weights must be contiguous on the CPU, not on {t.device}")
    if bias is not None and (bias.shape != (out_features,) or bias.dtype not in _BIASES):
        raise ValueError(
            f"the native product takes a bias ({out_features},) of float32 or bfloat16, not"
            f" {tuple(bias.shape)} {bias.dtype}"
        )
    return native.module().Matrix(
        format=get_layout(format).number,
        data=data.data_ptr(),
        scale=0 if scale is None else scale.data_ptr(),
        low=0 if low is None else low.data_ptr(),
        out=out_features,
        inputs=in_features,
        panel_bytes=data.shape[1],
        bias=0 if bias is None else bias.data_ptr(),
        bias_type=0 if bias is None else native.TYPES[bias.dtype],
    )
