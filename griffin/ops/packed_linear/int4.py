"""int4: values from -8 to 7, each stored + 8, in groups of 32 that have a scale; 576 bytes a unit.

Of each byte the low half is an input 8j..8j+3 of the group, the high half 8j+4..8j+7 (groups.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.packed_linear.groups import GROUP, in_groups, pack_groups, unpack_groups
from griffin.ops.packed_linear.packed import Layout, Packed


def round_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return values 0..15 (O, I) uint8 and scales (O, I/32) float16: weight = scale * (value - 8).

    The value of largest magnitude of a group is exactly -8 steps. Scales are rounded to what is
    stored before values are rounded to them. The last group may be shorter.
    """
    groups = in_groups(weight)
    extreme = groups.gather(2, groups.abs().argmax(2, keepdim=True))[..., 0]
    scale = (extreme / -8).to(torch.float16)
    wide = scale.float()
    inverse = torch.where(wide == 0, 0, 1 / wide)[..., None]
    values = (groups * inverse + 8).round_().clamp_(0, 15).to(torch.uint8)
    return values.flatten(1)[:, : weight.shape[1]].contiguous(), scale


def pack_int4(values: Tensor, scale: Tensor) -> Packed:
    """Pack values 0..15 (O, I) uint8 with scales (O, I/32): weight = scale * (value - 8)."""
    return pack_groups(values, scale, INT4, bits=4, zero=8)


def _pack(weight: Tensor) -> Packed:
    return pack_int4(*round_int4(weight))


def steps_int4(data: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `pack_int4` was given: values (rows, groups, 32) and scales (rows, groups)."""
    return unpack_groups(data, INT4, bits=4)


def _unpack(data: Tensor, scale: Tensor | None) -> Tensor:
    values, scales = steps_int4(data)
    return ((values.float() - 8) * scales.float()[..., None]).flatten(1)


INT4 = Layout(
    name="int4",
    number=2,
    unit_inputs=2 * GROUP,
    unit_bytes=576,
    row_scales=False,
    whole_numbers=True,
    activation_group=GROUP,
    pack=_pack,
    unpack=_unpack,
)
