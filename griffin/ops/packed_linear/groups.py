"""What int4, int2 and int3 share: units of 64 inputs, two groups of 32 that have a scale each.

For each group as many times 64 bytes as a value has bits, 16 rows x 4 bytes, whose lowest bits are
the first 4 of the inputs these bytes hold, the next ones the next 4, and so on; then 2 x 16 scales
in half precision.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import or_

import torch
from torch import Tensor

from griffin.ops.packed_linear.packed import PANEL, Layout, Packed, in_slices, pad

GROUP = 32  # inputs that share a scale


def in_groups(weight: Tensor) -> Tensor:
    """Return weights (O, I) as (O, I/32, 32) float32.

    The last group is padded by repetition, which leaves its extremes what they are.
    """
    inputs = weight.shape[1]
    repeated = weight[:, -1:].expand(-1, -inputs % GROUP)
    return torch.cat([weight, repeated], 1).float().unflatten(1, (-1, GROUP))


def round_groups(
    weight: Tensor, largest: float, nearest: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return values (O, I) uint8 and scales (O, I/32) float16 of weights (O, I).

    largest: how many scales the largest magnitude of a group is, exactly. nearest: the values of
    weights (O, I/32, 32) with scales (O, I/32, 1).
    """
    groups = in_groups(weight)
    scale = (groups.abs().amax(2) / largest).to(torch.float16)
    values = nearest(groups, scale.float()[..., None])
    return values.flatten(1)[:, : weight.shape[1]].contiguous(), scale


def pack_groups(values: Tensor, scale: Tensor, layout: Layout, bits: int, zero: int) -> Packed:
    """Pack values (O, I) uint8 of so many bits with scales (O, I/32).

    zero: the value that pads the inputs. Raises ValueError for other types, shapes and values.
    """
    groups = (values.shape[0], -(-values.shape[-1] // GROUP))
    if values.dtype != torch.uint8 or values.dim() != 2 or scale.shape != groups:
        raise ValueError(
            f"values must be (O, I) uint8 and scales (O, I/32) = {groups}, not"
            f" {tuple(values.shape)} {values.dtype}, {tuple(scale.shape)}"
        )
    most = (1 << bits) - 1
    if values.numel() and int(values.max()) > most:
        raise ValueError(f"values must be 0..{most}; the largest is {int(values.max())}")

    def panels(at: slice) -> Tensor:
        stream = pack_values(pad(values[at], layout.unit_inputs, zero), bits)
        halves = pad(scale[at].to(torch.float16), 2, 0).unflatten(1, (-1, 2))
        order = halves.unflatten(0, (-1, PANEL)).permute(0, 2, 3, 1).contiguous().flatten(2)
        return torch.cat([stream, order.view(torch.uint8)], dim=2).flatten(1)

    data = in_slices(values, layout.data_shape(*values.shape), panels)
    return Packed(data, None, layout.name, values.shape[0], values.shape[1])


def pack_values(values: Tensor, bits: int) -> Tensor:
    """Return values of whole panels and units (rows, I) uint8 as (panels, units, bytes)."""
    # (rows, block, group, j, which bits, input)
    split = values.unflatten(1, (-1, 2, bits, 8 // bits, 4))
    joined = reduce(or_, (part << n * bits for n, part in enumerate(split.unbind(-2))))
    return joined.unflatten(0, (-1, PANEL)).permute(0, 2, 3, 4, 1, 5).flatten(2)


def unpack_groups(data: Tensor, layout: Layout, bits: int) -> tuple[Tensor, Tensor]:
    """Return what `pack_groups` was given: values (rows, groups, 32) and scales (rows, groups)."""
    panels, stream = data.shape[0], 128 * bits
    blocks = data.view(panels, -1, layout.unit_bytes)
    halves = blocks[..., stream:].contiguous().view(torch.float16).unflatten(2, (2, PANEL))
    return (
        unpack_values(blocks[..., :stream], bits),
        halves.permute(0, 3, 1, 2).reshape(panels * PANEL, -1),
    )


def unpack_values(stream: Tensor, bits: int) -> Tensor:
    """Return what `pack_values` was given, in groups: (rows, groups, 32)."""
    joined = stream.unflatten(2, (2, bits, PANEL, 4))
    # (panel, block, group, j, row, which bits, input)
    parts = [joined >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)]
    values = torch.stack(parts, dim=5).permute(0, 4, 1, 2, 3, 5, 6)
    return values.reshape(stream.shape[0] * PANEL, -1, GROUP)
