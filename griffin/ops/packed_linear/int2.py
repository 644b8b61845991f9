"""int2: four values, -3, -1, 1 and 3 times the scale of a group of 32; 320 bytes a unit.

There is no zero but where the scale is one. Of each byte the two lowest bits are an input
16j..16j+3 of the group, the next two 16j+4..16j+7, and so on (groups.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.packed_linear.groups import GROUP, pack_groups, round_groups, unpack_groups
from griffin.ops.packed_linear.packed import Layout, Packed


def round_int2(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return values 0..3 (O, I) uint8 and scales (O, I/32) float16: weight = scale * (2 value - 3).

    A group's largest magnitude is exactly 3 scales. The last group may be shorter.
    """
    return round_groups(weight, 3, nearest_int2)


def nearest_int2(weight: Tensor, scale: Tensor) -> Tensor:
    """Return the value 0..3, uint8, nearest to each weight where 2 value - 3 is times `scale`."""
    steps = (weight > 0).to(torch.uint8) + (weight > 2 * scale) + (weight > -2 * scale)
    return steps.to(torch.uint8)


def pack_int2(values: Tensor, scale: Tensor) -> Packed:
    """Pack values 0..3 (O, I) uint8 with scales (O, I/32): weight = scale * (2 value - 3)."""
    return pack_groups(values, scale, INT2, bits=2, zero=0)


def _pack(weight: Tensor) -> Packed:
    return pack_int2(*round_int2(weight))


def _unpack(data: Tensor, scale: Tensor | None) -> Tensor:
    values, scales = unpack_groups(data, INT2, bits=2)
    return ((2 * values.float() - 3) * scales.float()[..., None]).flatten(1)


INT2 = Layout(
    name="int2",
    number=3,
    unit_inputs=2 * GROUP,
    unit_bytes=320,
    row_scales=False,
    whole_numbers=True,
    activation_group=GROUP,
    pack=_pack,
    unpack=_unpack,
)
