"""int4: units of 64 inputs, two groups of 32 that have a scale each, 576 bytes.

For each group 4 x 64 bytes, 16 rows x 4 bytes, whose low halves are inputs 8j..8j+3 of the group
and whose high halves are inputs 8j+4..8j+7, each value + 8; then 2 x 16 scales in half precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.packed_linear.packed import PANEL, Layout, Packed, in_slices, pad

GROUP = 32  # inputs that share a scale


def round_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return values 0..15 (O, I) uint8 and scales (O, I/32) float16: weight = scale * (value - 8).

    The value of largest magnitude of a group is exactly -8 steps. Scales are rounded to what is
    stored before values are rounded to them. The last group may be shorter.
    """
    inputs = weight.shape[1]
    # Padding by repetition leaves the last group's extremes what they are.
    repeated = weight[:, -1:].expand(-1, -inputs % GROUP)
    groups = torch.cat([weight, repeated], 1).float().unflatten(1, (-1, GROUP))
    extreme = groups.gather(2, groups.abs().argmax(2, keepdim=True))[..., 0]
    scale = (extreme / -8).to(torch.float16)
    wide = scale.float()
    inverse = torch.where(wide == 0, 0, 1 / wide)[..., None]
    values = (groups * inverse + 8).round_().clamp_(0, 15).to(torch.uint8)
    return values.flatten(1)[:, :inputs].contiguous(), scale


def pack_int4(values: Tensor, scale: Tensor) -> Packed:
    """Pack values 0..15 (O, I) uint8 with scales (O, I/32): weight = scale * (value - 8)."""
    groups = (values.shape[0], -(-values.shape[-1] // GROUP))
    if values.dtype != torch.uint8 or values.dim() != 2 or scale.shape != groups:
        raise ValueError(
            f"values must be (O, I) uint8 and scales (O, I/32) = {groups}, not"
            f" {tuple(values.shape)} {values.dtype}, {tuple(scale.shape)}"
        )
    if values.numel() and int(values.max()) > 15:
        raise ValueError(f"values must be 0..15; the largest is {int(values.max())}")

    def panels(at: slice) -> Tensor:
        # (rows, block, group, j, low or high half, input)
        nibbles = pad(values[at], INT4.unit_inputs, 8).unflatten(1, (-1, 2, 4, 2, 4))
        both = nibbles[..., 0, :] | nibbles[..., 1, :] << 4
        stream = both.unflatten(0, (-1, PANEL)).permute(0, 2, 3, 4, 1, 5).flatten(2)
        halves = pad(scale[at].to(torch.float16), 2, 0).unflatten(1, (-1, 2))
        order = halves.unflatten(0, (-1, PANEL)).permute(0, 2, 3, 1).contiguous().flatten(2)
        return torch.cat([stream, order.view(torch.uint8)], dim=2).flatten(1)

    data = in_slices(values, INT4.data_shape(*values.shape), panels)
    return Packed(data, None, INT4.name, *values.shape)


def _pack(weight: Tensor) -> Packed:
    return pack_int4(*round_int4(weight))


def steps_int4(data: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `pack_int4` was given: values (rows, groups, 32) and scales (rows, groups)."""
    panels = data.shape[0]
    blocks = data.view(panels, -1, INT4.unit_bytes)
    both = blocks[..., :512].unflatten(2, (2, 4, PANEL, 4))
    # (panel, block, group, j, row, low or high half, input)
    nibbles = torch.stack([both & 15, both >> 4], dim=5)
    values = nibbles.permute(0, 4, 1, 2, 3, 5, 6).reshape(panels * PANEL, -1, GROUP)
    halves = blocks[..., 512:].contiguous().view(torch.float16).unflatten(2, (2, PANEL))
    return values, halves.permute(0, 3, 1, 2).reshape(panels * PANEL, -1)


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
