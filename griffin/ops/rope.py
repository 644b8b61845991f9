"""Rotary position embedding with exact angles at any position."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import Any

import torch
from torch import Tensor

from griffin.ops import kernels
from griffin.ops.dispatch import natively, on_one_device
from griffin.ops.positions import WHOLE

_PI = "3.14159265358979323846264338327950288419716939937510"


def rope_frequencies(rope_width: int, theta: float, device: torch.device | str = "cpu") -> Tensor:
    """Return theta^(-2j / rope_width), (rope_width / 2,) float64, made on a device."""
    places = torch.arange(0, rope_width, 2, dtype=torch.float64, device=device)
    return theta ** (-places / max(rope_width, 1))


def rope_turns(rope_width: int, theta: float) -> Tensor:
    """Return by what part of a turn each pair rotates a position, in units of 2^-64: int64.

    (rope_width / 2,): theta^(-2j / rope_width) / 2 pi, to 64 bits. A position times one of them,
    taken modulo 2^64 as 64-bit numbers are, is the angle without its whole turns: exact angles at
    any position without float64, and without a sine of a large number.
    """
    with localcontext() as context:
        context.prec = 50
        base, turn = Decimal(repr(float(theta))), 2 * Decimal(_PI)
        parts = (base ** (Decimal(-j) / rope_width) / turn for j in range(0, rope_width, 2))
        return torch.tensor([int(part * (1 << 64)) for part in parts], dtype=torch.int64)


def table_of_turns(positions: Tensor, turns: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return what `rope_table` does, from `rope_turns`."""
    # Wraps, as whole numbers of 64 bits do; the rest is at most half a turn.
    angles = (positions[:, :, None, None] * turns).to(torch.float64) * (2 * math.pi / 2**64)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rope_table(
    positions: Tensor, rope_width: int, theta: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of the angles at integer positions.

    positions: (B, T) int64. Returns two (B, T, 1, rope_width / 2) in `dtype`, at least float32.
    Frequencies are theta^(-2j / rope_width). Angles are formed in float64 from the integers and
    reduced there: float32 would round the position itself from 2^24 on. Raises ValueError for
    positions that are no whole numbers. Su et al. (arXiv:2104.09864).
    """
    if positions.dim() != 2 or positions.dtype not in WHOLE or rope_width < 0:
        raise ValueError(
            f"positions must be whole numbers (B, T), not {tuple(positions.shape)}"
            f" {positions.dtype}, and rope_width at least 0, not {rope_width}"
        )
    wide = torch.promote_types(dtype, torch.float32)
    frequencies = rope_frequencies(rope_width, theta, positions.device)
    like = torch.empty(*positions.shape, 1, len(frequencies), dtype=wide, device=positions.device)
    if natively(like):
        cos, sin = like, torch.empty_like(like)
        sizes = positions.numel(), len(frequencies)
        tensors = positions.long(), frequencies, cos, sin
        kernels.call("rope_table", wide, sizes, tensors)
        return cos, sin
    angles = positions[:, :, None, None].to(torch.float64) * frequencies
    return angles.cos().to(wide), angles.sin().to(wide)


def apply_rope(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the first entries of each head, in halves: x (B, T, N, H), table from `rope_table`.

    A table of one row, or of one token, serves for all. Raises ValueError for one of other rows or
    tokens, and one that is wider than the heads.
    """
    cos, sin = table
    half = cos.shape[-1] if cos.dim() else 0
    shape = x.shape
    full = torch.Size((*shape[:2], 1, half))
    if len(shape) != 4 or cos.shape != full or sin.shape != full:
        cos, sin = (_for_all(t, full, x) for t in (cos, sin))
    if 2 * half > shape[-1]:
        raise ValueError(f"a table of {half} angles does not fit heads {tuple(x.shape)}")
    if half == 0:
        return x
    on_one_device(x, cos, sin)
    wide = torch.float64 if x.dtype is torch.float64 else torch.float32
    if cos.dtype is wide and natively(cos, sin) and natively(x, trains=True):
        if not (torch.is_grad_enabled() and x.requires_grad):
            return _rotated(x, cos, sin)
        y: Any = _Rotation.apply(x, cos, sin)
        return y
    first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    first, second = first.to(cos.dtype), second.to(cos.dtype)
    rotated = [first * cos - second * sin, second * cos + first * sin]
    return torch.cat([*(part.to(x.dtype) for part in rotated), rest], dim=-1)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    y = x.clone(memory_format=torch.contiguous_format)
    rows, steps, heads, width = x.shape
    kernels.call("rope", x.dtype, (rows * steps, heads, width, cos.shape[-1]), (y, cos, sin))
    return y


class _Rotation(torch.autograd.Function):
    """A rotation, whose gradient is turned back by the same angles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, None, None]:
        cos, sin = ctx.saved_tensors
        return _Rotation.apply(grads[0], cos, -sin), None, None


def _for_all(table: Tensor, full: torch.Size, x: Tensor) -> Tensor:
    """Return a table of one row or one token as one of all of them."""
    alike = zip(table.shape, full, strict=False)
    if x.dim() != 4 or table.dim() != 4 or any(n not in (1, most) for n, most in alike):
        raise ValueError(
            f"a table of {tuple(table.shape)} does not fit heads {tuple(x.shape)}; it must be"
            " (B, T, 1, at most H / 2)"
        )
    return table.expand(full)
