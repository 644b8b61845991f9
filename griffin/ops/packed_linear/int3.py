"""int3: odd numbers from -7 to 7 times half the scale of a group of 32; 448 bytes a unit.

The upper two bits and the scales are a matrix of int2; the lowest bit of each value lies apart,
`Packed.low`. So who needs two bits reads two, and either is one stream from the first panel to the
last: the machine stops looking ahead at a gap of a few lines. A byte of low bits has those of eight
inputs, one of each four: 0..3, 4..7, 16..19, 20..23, 8..11, 12..15, 24..27, 28..31 from its lowest
bit on. So two values whose upper bits lie a nibble apart have their third a nibble apart too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.packed_linear.groups import (
    GROUP,
    pack_values,
    round_groups,
    unpack_groups,
    unpack_values,
)
from griffin.ops.packed_linear.int2 import INT2, pack_int2
from griffin.ops.packed_linear.packed import PANEL, Layout, Packed, in_slices, pad


def round_int3(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return values 0..7 (O, I) uint8 and scales (O, I/32) float16: weight = scale * (value - 3.5).

    A group's largest magnitude is exactly 3.5 scales. The last group may be shorter.
    """
    return round_groups(weight, 3.5, nearest_int3)


def nearest_int3(weight: Tensor, scale: Tensor) -> Tensor:
    """Return the value 0..7, uint8, nearest to each weight where value - 3.5 is times `scale`."""
    steps = (weight > 0).to(torch.uint8)
    for edge in (1, 2, 3):
        steps += (weight > edge * scale).to(torch.uint8) + (weight > -edge * scale)
    return steps


def pack_int3(values: Tensor, scale: Tensor) -> Packed:
    """Pack values 0..7 (O, I) uint8 with scales (O, I/32): weight = scale * (value - 3.5)."""
    if values.dtype == torch.uint8 and values.numel() and int(values.max()) > 7:
        raise ValueError(f"values must be 0..7; the largest is {int(values.max())}")
    upper = pack_int2(values >> 1, scale)

    def low(at: slice) -> Tensor:
        return pack_values(_turned(pad(values[at] & 1, INT3.unit_inputs, 0)), 1).flatten(1)

    lower = in_slices(values, INT3.low_shape(*values.shape), low)
    return upper._replace(format=INT3.name, low=lower)


def upper_bits(packed: Packed) -> Packed:
    """Return the int2 matrix that lies in one of int3: the same memory."""
    return packed._replace(format=INT2.name, low=None)


def _turned(values: Tensor) -> Tensor:
    """Return values (rows, inputs), the second and third eight of each 32 in each other's place."""
    return values.unflatten(1, (-1, 2, 2, 8)).transpose(2, 3).flatten(1)


def _pack(weight: Tensor) -> Packed:
    return pack_int3(*round_int3(weight))


def _unpack(data: Tensor, low: Tensor | None) -> Tensor:
    assert low is not None
    upper, scales = unpack_groups(data, INT2, bits=2)
    third = _turned(unpack_values(low.unflatten(1, (-1, INT3.low_bytes)), 1).flatten(1))
    third = third.unflatten(1, (-1, GROUP))
    return ((2 * upper + third).float().sub_(3.5) * scales.float()[..., None]).flatten(1)


INT3 = Layout(
    name="int3",
    number=4,
    unit_inputs=2 * GROUP,
    unit_bytes=INT2.unit_bytes,
    row_scales=False,
    whole_numbers=True,
    activation_group=GROUP,
    pack=_pack,
    unpack=_unpack,
    low_bytes=2 * GROUP * PANEL // 8,
)
