"""Packed weights as the native module has them: by addresses, looked at before they are taken."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from griffin.ops import native
from griffin.ops.packed_linear.layouts import get_layout
from griffin.ops.packed_linear.packed import PANEL, Packed

_BIASES = (torch.float32, torch.bfloat16)


def packed_matrix(packed: Packed, bias: Tensor | None) -> Any:
    """Return the native module's view of packed weights and a bias; it does not keep them alive.

    Raises ValueError unless they are whole, contiguous and on the CPU.
    """
    data, scale, format, out_features, in_features = packed
    layout = get_layout(format)
    what = f"{format} weights ({out_features}, {in_features})"
    if out_features < 1 or in_features < 1:
        raise ValueError(f"{what} are empty; a matrix has at least one row and one column")
    _check(what, data, layout.data_shape(out_features, in_features), (torch.uint8,))
    scales = PANEL * data.shape[0] if layout.row_scales else 0
    if scale is None and scales:
        raise ValueError(f"{what} have {scales} row scales, not none")
    if scale is not None:
        _check(f"the row scales of {what}", scale, (scales,), (torch.float32,))
    if bias is not None:
        _check(f"the bias of {what}", bias, (out_features,), _BIASES)
    return native.module().Matrix(
        format=layout.number,
        data=data.data_ptr(),
        scale=0 if scale is None else scale.data_ptr(),
        out=out_features,
        inputs=in_features,
        panel_bytes=data.shape[1],
        bias=0 if bias is None else bias.data_ptr(),
        bias_type=0 if bias is None else native.TYPES[bias.dtype],
    )


def _check(what: str, t: Tensor, shape: tuple[int, ...], types: tuple[torch.dtype, ...]) -> None:
    if t.shape != shape or t.dtype not in types or not t.is_cpu or not t.is_contiguous():
        raise ValueError(
            f"{what} are contiguous {' or '.join(map(str, types))} {shape} on the CPU, not"
            f" {tuple(t.shape)} {t.dtype} on {t.device}"
        )
