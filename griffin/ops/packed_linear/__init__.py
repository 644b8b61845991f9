"""A product with packed weights of 16, 8, 4, 3 or 2 bits."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.dispatch import implementation
from griffin.ops.packed_linear.embedding import look_up
from griffin.ops.packed_linear.gradient import input_gradient
from griffin.ops.packed_linear.int2 import pack_int2
from griffin.ops.packed_linear.int3 import nearest_int3, pack_int3, round_int3, upper_bits
from griffin.ops.packed_linear.int4 import pack_int4, round_int4
from griffin.ops.packed_linear.int8 import pack_int8, round_int8
from griffin.ops.packed_linear.layouts import LAYOUTS, get_layout, pack, unpack
from griffin.ops.packed_linear.matrix import check_packed, packed_matrix
from griffin.ops.packed_linear.packed import PANEL, Layout, Packed

__all__ = [
    "LAYOUTS",
    "PANEL",
    "Layout",
    "Packed",
    "get_layout",
    "input_gradient",
    "look_up",
    "nearest_int3",
    "pack",
    "pack_int2",
    "pack_int3",
    "pack_int4",
    "pack_int8",
    "packed_linear",
    "packed_matrix",
    "round_int3",
    "round_int4",
    "round_int8",
    "unpack",
    "upper_bits",
]


def packed_linear(
    x: Tensor, packed: Packed, bias: Tensor | None = None, out_dtype: torch.dtype | None = None
) -> Tensor:
    """Return x W^T + bias for packed weights W (O, I).

    x:         (..., I) float32, bfloat16 (other types where no native kernel is needed).
    bias:      (O,).
    out_dtype: of the result, x.dtype if omitted; sums are float32 and rounded once.
    Returns (..., O). A row has the same bits whatever the number of rows and threads. With bf16
    weights activations are taken as they are. With int8 the native kernels round them to 16 bits,
    in steps of the row's largest magnitude / 32512, and sum exactly. With int4, int3 and int2 every
    implementation rounds them to 8 bits, in steps of the largest magnitude of 32 inputs / 127. The
    gradient reaches x and bias, as if nothing were rounded (`input_gradient`).
    Raises ValueError for shapes that do not match.
    """
    check_packed(packed)
    if x.dim() == 0 or x.shape[-1] != packed.in_features:
        raise ValueError(f"x {tuple(x.shape)} does not fit weights of {packed.in_features} inputs")
    if bias is not None and bias.shape != (packed.out_features,):
        raise ValueError(f"bias must be ({packed.out_features},), not {tuple(bias.shape)}")
    run = implementation("packed_linear", x, packed.data, packed.scale, bias)
    return run(x, packed, bias, out_dtype or x.dtype)
