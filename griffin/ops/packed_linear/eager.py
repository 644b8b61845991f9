"""The product in torch: weights unpacked to x's type a slice at a time, then torch's product."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from griffin.ops.linear import padded_rows
from griffin.ops.packed_linear.activations import round_activations
from griffin.ops.packed_linear.gradient import straight_through
from griffin.ops.packed_linear.layouts import unpack_rows
from griffin.ops.packed_linear.packed import PANEL, Packed

_PANELS = 128  # unpacked at once: 2,048 rows


def packed_linear(x: Tensor, packed: Packed, bias: Tensor | None, out_dtype: torch.dtype) -> Tensor:
    if torch.compiler.is_compiling():
        return _product(x, packed, bias, out_dtype)
    return straight_through(_product, x, packed, bias, out_dtype)


def _product(x: Tensor, packed: Packed, bias: Tensor | None, out_dtype: torch.dtype) -> Tensor:
    x = round_activations(x, packed.format)
    rows = x.numel() // x.shape[-1]
    flat = functional.pad(
        x.reshape(rows, x.shape[-1]), (0, 0, 0, padded_rows(rows, x.dtype) - rows)
    )
    parts = []
    for first in range(0, packed.data.shape[0], _PANELS):
        weight = unpack_rows(packed, first, first + _PANELS)
        weight = weight[: packed.out_features - first * PANEL, : packed.in_features].to(x.dtype)
        parts.append(functional.linear(flat, weight))
    y = torch.cat(parts, dim=1)[:rows].to(torch.promote_types(x.dtype, torch.float32))
    if bias is not None:
        y = y + bias.to(y.dtype)
    return y.to(out_dtype).reshape(*x.shape[:-1], packed.out_features)
