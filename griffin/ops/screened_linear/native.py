"""The product in C++: one pass over the preview, then over the panels of each row."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops import kernels
from griffin.ops.packed_linear.matrix import laid_out, packed_matrix
from griffin.ops.packed_linear.packed import Packed


def screened_linear(x: Tensor, preview: Packed, packed: Packed, panels: int) -> Tensor:
    preview, packed = laid_out(preview), laid_out(packed)
    matrices = packed_matrix(preview, None), packed_matrix(packed, None)
    outputs, inputs = packed.out_features, packed.in_features
    y = torch.empty(*x.shape[:-1], outputs, dtype=torch.float32)
    if y.numel():
        sizes = x.numel() // inputs, inputs, outputs
        kernels.call("screened_linear", x.dtype, sizes, (x, y), *matrices, panels)
    return y
