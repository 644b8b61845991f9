"""A packed matrix as named tensors in a file, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from griffin.ops import Packed, settle, unpack
from griffin.ops.packed_linear import panel_bytes

__all__ = ["DATA", "SCALE", "Packed", "join", "settle", "split", "stored_parts", "unpack"]

# Added to the matrix's name: the bytes by the panel of 16 output rows, and scales that lie outside
# them. They are the names of PackedWeight's buffers, so a quantized model's state dict is what its
# files hold.
DATA, SCALE = "_packed", "_scale"
_PANEL = 16


def stored_parts(
    shape: tuple[int, ...], format: str
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return shape and type of each tensor that a packed matrix (O, I) is stored as."""
    panels = -(-shape[0] // _PANEL)
    parts: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        DATA: ((panels, panel_bytes(format, shape[1])), torch.uint8)
    }
    if format == "int8":
        parts[SCALE] = ((panels * _PANEL,), torch.float32)
    return parts


def split(packed: Packed) -> dict[str, Tensor]:
    """Return the tensors that a packed matrix is stored as."""
    return {DATA: packed.data} | ({} if packed.scale is None else {SCALE: packed.scale})


def join(parts: Mapping[str, Tensor], shape: tuple[int, ...], format: str) -> Packed:
    """Do the reverse of `split` for a matrix (O, I): nothing is copied."""
    rows, inputs = shape
    return Packed(parts[DATA], parts.get(SCALE), format, rows, inputs)
