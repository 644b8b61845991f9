"""Rotary position embedding with exact angles at any position."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops import native
from griffin.ops.dispatch import natively


def rope_frequencies(rope_width: int, theta: float) -> Tensor:
    """Return theta^(-2j / rope_width), (rope_width / 2,) float64."""
    return theta ** (-torch.arange(0, rope_width, 2, dtype=torch.float64) / max(rope_width, 1))


def rope_table(
    positions: Tensor, rope_width: int, theta: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of the angles at integer positions.

    positions: (B, T) int64. Returns two (B, T, 1, rope_width / 2) in `dtype`, at least float32.
    Frequencies are theta^(-2j / rope_width). Angles are formed in float64 from the integers and
    reduced there: float32 would round the position itself from 2^24 on. Su et al.
    (arXiv:2104.09864).
    """
    wide = torch.promote_types(dtype, torch.float32)
    frequencies = rope_frequencies(rope_width, theta)
    like = torch.empty(*positions.shape, 1, len(frequencies), dtype=wide, device=positions.device)
    if natively(like):
        cos, sin = like, torch.empty_like(like)
        positions = positions.contiguous()
        native.module().rope_table(
            native.TYPES[wide],
            positions.data_ptr(),
            positions.numel(),
            frequencies.data_ptr(),
            len(frequencies),
            *native.addresses(cos, sin),
        )
        return cos, sin
    angles = positions[:, :, None, None].to(torch.float64) * frequencies.to(positions.device)
    return angles.cos().to(wide), angles.sin().to(wide)


def apply_rope(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the first entries of each head, in halves: x (B, T, N, H), table from `rope_table`."""
    cos, sin = table
    half = cos.shape[-1]
    if half == 0:
        return x
    if natively(x) and cos.dtype == torch.promote_types(x.dtype, torch.float32):
        y = x.clone(memory_format=torch.contiguous_format)
        rows, steps, heads, width = x.shape
        at = native.addresses(y, cos.contiguous(), sin.contiguous())
        native.module().rope(
            native.TYPES[x.dtype], rows * steps, heads, width, half, *at, torch.get_num_threads()
        )
        return y
    first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    first, second = first.to(cos.dtype), second.to(cos.dtype)
    rotated = [first * cos - second * sin, second * cos + first * sin]
    return torch.cat([*(part.to(x.dtype) for part in rotated), rest], dim=-1)
