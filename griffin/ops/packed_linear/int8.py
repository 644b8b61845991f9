"""int8: units of four inputs, 16 rows x 4 bytes, each value + 128; a float32 scale a row, apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from griffin.ops.packed_linear.packed import (
    PANEL,
    Layout,
    Packed,
    in_slices,
    interleave,
    pad,
    separate,
)

LONGEST = 65_536  # inputs: what the 32-bit sums of the kernels can hold


def round_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 values (O, I) and float32 scales (O,) nearest to weights (O, I)."""
    weight = weight.float()
    scale = weight.abs().amax(1) / 127
    inverse = torch.where(scale > 0, 1 / scale, 0)
    return (weight * inverse[:, None]).round_().clamp_(-127, 127).to(torch.int8), scale


def pack_int8(values: Tensor, scale: Tensor) -> Packed:
    """Pack int8 values (O, I) with their scales (O,): weight = scale * value."""
    if values.dtype != torch.int8 or values.dim() != 2 or scale.shape != values.shape[:1]:
        raise ValueError(
            f"values must be (O, I) int8 and scale (O,), not {tuple(values.shape)} {values.dtype}, "
            f"{tuple(scale.shape)}"
        )
    if values.shape[1] > LONGEST:
        raise ValueError(f"{values.shape[1]:,} inputs; int8 takes at most {LONGEST:,}")

    def panels(at: slice) -> Tensor:
        unsigned = values[at].view(torch.uint8) ^ 128  # the same bits as adding 128
        return interleave(pad(unsigned, INT8.unit_inputs, 128).view(torch.int32))

    padded = functional.pad(scale.float(), (0, -scale.shape[0] % PANEL))
    data = in_slices(values, INT8.data_shape(*values.shape), panels)
    return Packed(data, padded, INT8.name, values.shape[0], values.shape[1])


def _pack(weight: Tensor) -> Packed:
    return pack_int8(*round_int8(weight))


def bytes_int8(data: Tensor) -> Tensor:
    """Return the values that `pack_int8` was given, each + 128: (rows, inputs) uint8."""
    return separate(data).view(torch.uint8).flatten(0, 1)


def _unpack(data: Tensor, scale: Tensor | None) -> Tensor:
    assert scale is not None
    return (bytes_int8(data).float() - 128) * scale[:, None]


INT8 = Layout(
    name="int8",
    number=1,
    unit_inputs=4,
    unit_bytes=64,
    row_scales=True,
    whole_numbers=True,
    activation_group=None,
    pack=_pack,
    unpack=_unpack,
)
