"""A packed matrix as named tensors in a file, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from griffin.ops import Packed, unmap, unpack
from griffin.ops.packed_linear import PANEL, get_layout

__all__ = ["DATA", "SCALE", "Packed", "join", "split", "stored_parts", "unmap", "unpack"]

# Added to the matrix's name: the panels of 16 output rows, and the scales and lowest bits that lie
# beside them. They are the names of PackedWeight's buffers, so a quantized model's state dict is
# what its files hold.
DATA, SCALE, LOW = "_packed", "_scale", "_low"


def stored_parts(
    shape: tuple[int, ...], format: str
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return shape and type of each tensor that a packed matrix (O, I) is stored as."""
    layout = get_layout(format)
    data = layout.data_shape(*shape)
    parts: dict[str, tuple[tuple[int, ...], torch.dtype]] = {DATA: (data, torch.uint8)}
    if layout.row_scales:
        parts[SCALE] = ((data[0] * PANEL,), torch.float32)
    if layout.low_bytes:
        parts[LOW] = (layout.low_shape(*shape), torch.uint8)
    return parts


def split(packed: Packed) -> dict[str, Tensor]:
    """Return the tensors that a packed matrix is stored as."""
    parts = {DATA: packed.data, SCALE: packed.scale, LOW: packed.low}
    return {part: tensor for part, tensor in parts.items() if tensor is not None}


def join(parts: Mapping[str, Tensor], shape: tuple[int, ...], format: str) -> Packed:
    """Do the reverse of `split` for a matrix (O, I): nothing is copied."""
    rows, inputs = shape
    return Packed(parts[DATA], parts.get(SCALE), format, rows, inputs, parts.get(LOW))
