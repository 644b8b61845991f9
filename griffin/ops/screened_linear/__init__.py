"""A product with a large matrix that reads a small copy of it, and whole what that says is best.

Logits of which the largest count. As "screening" in arXiv:1810.12406, but the candidates come from
the same weights in fewer bits, which need no training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.dispatch import implementation
from griffin.ops.packed_linear.matrix import check_packed
from griffin.ops.packed_linear.packed import Packed

__all__ = ["screened_linear"]


@torch.no_grad()
def screened_linear(x: Tensor, preview: Packed, packed: Packed, panels: int) -> Tensor:
    """Return x W^T, exact where it is largest, from a preview of W elsewhere.

    x:       (..., I) float32 or bfloat16.
    preview: W (O, I) in fewer bits. packed: W itself. Neither has a bias.
    panels:  how many panels of 16 outputs are read whole for each row, those that hold the largest
             previews, of equals the first. So its `panels` largest previews are among them.
    Returns (..., O) float32. Exact values have the bits of `packed_linear`; which they are depends
    on the row alone, so a row has the same bits whatever the number of rows and threads. No
    gradient. Raises ValueError for matrices of two shapes, and for no panels.
    """
    check_packed(preview)
    check_packed(packed)
    shapes = [(p.out_features, p.in_features) for p in (preview, packed)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"a preview {shapes[0]} is none of a matrix {shapes[1]}")
    if x.dim() == 0 or x.shape[-1] != packed.in_features:
        raise ValueError(f"x {tuple(x.shape)} does not fit weights of {packed.in_features} inputs")
    if panels < 1:
        raise ValueError(f"panels must be at least 1, not {panels}")
    run = implementation("screened_linear", x, preview.data, packed.data, packed.scale)
    return run(x, preview, packed, panels)
