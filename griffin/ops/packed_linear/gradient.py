"""What a product with packed weights gives back: the gradient of its inputs, straight through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from griffin.ops import native
from griffin.ops.packed_linear.layouts import unpack_rows
from griffin.ops.packed_linear.packed import PANEL, Packed

_WEIGHTS = 4_194_304  # unpacked at once: 16 MB in float32, however large the matrix is


def input_gradient(dy: Tensor, packed: Packed, into: Tensor | None = None) -> Tensor:
    """Return dy W for packed weights W (O, I), as if nothing had been rounded.

    dy:   (N, O). into: (N, I), to which it is added; zeros if omitted.
    Returns (N, I) in float32 or wider. Weights are unpacked a slice at a time, never all of them.
    They are multiplied in float32 or wider. Where the machine multiplies pairs of bfloat16 numbers,
    a bfloat16 dy is so: the weights, and the product of each slice, are rounded to bfloat16 once,
    which adds an error like that of one rounding of the sum. Slices are added in float32 or wider.
    """
    wide = torch.promote_types(dy.dtype, torch.float32)
    if into is None:
        into = dy.new_zeros(dy.shape[0], packed.in_features, dtype=wide)
    kind = dy.dtype if _multiplies(dy) else wide
    with torch.autocast(dy.device.type, enabled=False):
        for rows, weight in unpacked_slices(packed, kind):
            some = dy[:, rows].to(kind)
            if kind is into.dtype:
                into.addmm_(some, weight)
            else:
                into += some @ weight
    return into


def unpacked_slices(packed: Packed, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Yield which output rows, and their weights (rows, I) in `dtype`, some rows at a time."""
    inputs, outputs = packed.in_features, packed.out_features
    step = max(1, _WEIGHTS // inputs // PANEL)
    for first in range(0, packed.data.shape[0], step):
        rows = slice(first * PANEL, min((first + step) * PANEL, outputs))
        weight = unpack_rows(packed, first, min(first + step, packed.data.shape[0]))
        yield rows, weight[: rows.stop - rows.start, :inputs].to(dtype)


# From x, packed weights, bias and the type of the result to x W^T + bias.
Run = Callable[[Tensor, Packed, Tensor | None, torch.dtype], Tensor]


def straight_through(
    run: Run, x: Tensor, packed: Packed, bias: Tensor | None, out_dtype: torch.dtype
) -> Tensor:
    """Return run(x, packed, bias, out_dtype), with a gradient that keeps nothing of x's size."""
    given = (x,) if bias is None else (x, bias)
    if not (torch.is_grad_enabled() and any(t.requires_grad for t in given)):
        return run(x, packed, bias, out_dtype)
    found: Any = _StraightThrough.apply(x, bias, packed, out_dtype, run)
    return found


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, packed: Packed, out_dtype: torch.dtype, run: Run
    ) -> Tensor:
        ctx.packed, ctx.x_dtype = packed, x.dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        return run(x, packed, bias, out_dtype)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides its names
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad
        kinds = ctx.x_dtype if needs[0] else None, ctx.bias_dtype if needs[1] else None
        return *gradients(grads[0], ctx.packed, *kinds), None, None, None


def gradients(
    dy: Tensor, packed: Packed, x_dtype: torch.dtype | None, bias_dtype: torch.dtype | None
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of x (..., I) and bias (O,) in their types, from that of y (..., O).

    None where the type is None: it is not wanted.
    """
    flat, dx, dbias = dy.reshape(-1, dy.shape[-1]), None, None
    if x_dtype is not None:
        dx = input_gradient(flat, packed).to(x_dtype)
        dx = dx.reshape(*dy.shape[:-1], packed.in_features)
    if bias_dtype is not None:
        wide = torch.promote_types(dy.dtype, torch.float32)
        dbias = flat.to(wide).sum(0).to(bias_dtype)
    return dx, dbias


def _multiplies(dy: Tensor) -> bool:
    """Return whether products in dy's own type are at least as fast as in float32."""
    if not dy.is_cpu or dy.element_size() > 2:
        return True
    return dy.dtype is torch.bfloat16 and native.multiplies_bfloat16()
