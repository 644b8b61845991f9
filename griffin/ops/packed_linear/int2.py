"""int2: units of 64 inputs, two groups of 32 that have a scale each, 320 bytes.

For each group 2 x 64 bytes, 16 rows x 4 bytes, whose two lowest bits are inputs 16j..16j+3 of the
group, the next two 16j+4..16j+7, and so on; then 2 x 16 scales in half precision. The four values
stand for -3, -1, 1 and 3 times the scale: there is no zero but where the scale is one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.packed_linear.packed import PANEL, Layout, Packed, in_slices, pad

GROUP = 32  # inputs that share a scale


def round_int2(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return values 0..3 (O, I) uint8 and scales (O, I/32) float16: weight = scale * (2 value - 3).

    A group's largest magnitude is exactly 3 scales. The last group may be shorter.
    """
    inputs = weight.shape[1]
    # Padding by repetition leaves the last group's extremes what they are.
    repeated = weight[:, -1:].expand(-1, -inputs % GROUP)
    groups = torch.cat([weight, repeated], 1).float().unflatten(1, (-1, GROUP))
    scale = (groups.abs().amax(2) / 3).to(torch.float16)
    values = nearest_int2(groups, scale.float()[..., None])
    return values.flatten(1)[:, :inputs].contiguous(), scale


def nearest_int2(weight: Tensor, scale: Tensor) -> Tensor:
    """Return the value 0..3, uint8, nearest to each weight where 2 value - 3 is times `scale`."""
    steps = (weight > 0).to(torch.uint8) + (weight > 2 * scale) + (weight > -2 * scale)
    return steps.to(torch.uint8)


def pack_int2(values: Tensor, scale: Tensor) -> Packed:
    """Pack values 0..3 (O, I) uint8 with scales (O, I/32): weight = scale * (2 value - 3)."""
    groups = (values.shape[0], -(-values.shape[-1] // GROUP))
    if values.dtype != torch.uint8 or values.dim() != 2 or scale.shape != groups:
        raise ValueError(
            f"values must be (O, I) uint8 and scales (O, I/32) = {groups}, not"
            f" {tuple(values.shape)} {values.dtype}, {tuple(scale.shape)}"
        )
    if values.numel() and int(values.max()) > 3:
        raise ValueError(f"values must be 0..3; the largest is {int(values.max())}")

    def panels(at: slice) -> Tensor:
        # (rows, block, group, j, which two bits, input)
        pairs = pad(values[at], INT2.unit_inputs, 0).unflatten(1, (-1, 2, 2, 4, 4))
        four = pairs[..., 0, :] | pairs[..., 1, :] << 2 | pairs[..., 2, :] << 4
        four |= pairs[..., 3, :] << 6
        stream = four.unflatten(0, (-1, PANEL)).permute(0, 2, 3, 4, 1, 5).flatten(2)
        halves = pad(scale[at].to(torch.float16), 2, 0).unflatten(1, (-1, 2))
        order = halves.unflatten(0, (-1, PANEL)).permute(0, 2, 3, 1).contiguous().flatten(2)
        return torch.cat([stream, order.view(torch.uint8)], dim=2).flatten(1)

    data = in_slices(values, INT2.data_shape(*values.shape), panels)
    return Packed(data, None, INT2.name, *values.shape)


def _pack(weight: Tensor) -> Packed:
    return pack_int2(*round_int2(weight))


def _unpack(data: Tensor, scale: Tensor | None) -> Tensor:
    panels = data.shape[0]
    blocks = data.view(panels, -1, INT2.unit_bytes)
    four = blocks[..., :256].unflatten(2, (2, 2, PANEL, 4))
    # (panel, block, group, j, row, which two bits, input)
    values = torch.stack([four >> shift & 3 for shift in (0, 2, 4, 6)], dim=5)
    values = values.permute(0, 4, 1, 2, 3, 5, 6).reshape(panels * PANEL, -1, GROUP)
    halves = blocks[..., 256:].contiguous().view(torch.float16).unflatten(2, (2, PANEL))
    scales = halves.permute(0, 3, 1, 2).reshape(panels * PANEL, -1)
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
