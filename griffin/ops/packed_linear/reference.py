"""The product of rounded activations and unpacked weights, in float32 or wider."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.packed_linear.activations import round_activations
from griffin.ops.packed_linear.layouts import unpack
from griffin.ops.packed_linear.packed import Packed


def packed_linear(x: Tensor, packed: Packed, bias: Tensor | None, out_dtype: torch.dtype) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    y = round_activations(x.to(wide), packed.format) @ unpack(packed, wide).T
    if bias is not None:
        y = y + bias.to(wide)
    return y.to(out_dtype)
