"""Root-mean-square normalisation, alone and with the residual stream around it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from griffin.ops import kernels
from griffin.ops.dispatch import natively

_BLOCK = 64  # rows whose gradients of the weight are summed together: kNormRows, native/sequence.h


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale x to a root mean square of one, times (1 + weight).

    x: (..., D); weight: (D,), centred at zero as the checkpoints store it. Returns x.dtype, and
    under autocast its type, which the next product takes; computed in float32 or wider, rounded
    once. Raises ValueError for a weight of another shape.
    RecurrentGemma's reference code; Zhang and Sennrich (arXiv:1910.07467).
    """
    shape = x.shape
    if not shape or weight.shape != shape[-1:]:
        raise ValueError(
            f"weight must be (D,) = {tuple(x.shape[-1:])} for x {tuple(x.shape)}, not"
            f" {tuple(weight.shape)}"
        )
    dtype = _type_for_products(x)
    if dtype is x.dtype and natively(x, weight):
        y = kernels.fresh(x)
        width = shape[-1]
        kernels.call("norm", x.dtype, (x.numel() // max(width, 1), width), (x, weight, y), eps)
        return y
    if _has_kernel(x, weight, dtype):
        return _normed(x, None, weight, eps, dtype)[0]
    return _torch(x, weight, eps, dtype)


def residual_norm(x: Tensor, add: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, ...]:
    """Return the norm of a residual stream after something was added to it, and the stream.

    x: (..., D) the stream; add: what a block gives to it, of its shape and type (bfloat16 beside
    float32 under autocast), None for nothing. So (rms_norm(x + add), x + add), in one pass; and
    backwards the gradients of both come in one pass, which keeps nothing but the sum.
    """
    dtype = _type_for_products(x)
    fits = add is None or (
        add.shape == x.shape and (add.dtype is x.dtype or (x.dtype, add.dtype) == _MIXED)
    )
    if fits and weight.shape == x.shape[-1:] and _has_kernel(x, weight, dtype, add):
        return _normed(x, add, weight, eps, dtype)
    total = x if add is None else x + add
    return rms_norm(total, weight, eps), total


_MIXED = (torch.float32, torch.bfloat16)


def _type_for_products(x: Tensor) -> torch.dtype:
    """Return the type the next product takes."""
    kind = x.device.type
    if x.dtype is torch.float32 and kind != "meta" and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


def _torch(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    x32 = x.to(wide)
    scale = torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)
    return (x32 * scale * (1 + weight.to(wide))).to(dtype)


def _has_kernel(x: Tensor, weight: Tensor, dtype: torch.dtype, add: Tensor | None = None) -> bool:
    if not x.numel() or (dtype is not x.dtype and (x.dtype, dtype) != _MIXED):
        return False  # what is empty has no address
    return natively(x, weight, trains=True) and (add is None or add.is_cpu)


def _normed(
    x: Tensor, add: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, add, weight)):
        found: Any = _Norm.apply(x, add, weight, eps, dtype)
        return found
    return _forward(x, add, weight, eps, dtype)


def _forward(
    x: Tensor, add: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    y = kernels.fresh(x, dtype)
    total = x if add is None else kernels.fresh(x)
    wide_add, half_add = (add, None) if add is None or add.dtype is x.dtype else (None, add)
    wide_y, half_y = (y, None) if dtype is x.dtype else (None, y)
    sums = None if add is None else total
    tensors = x, wide_add, half_add, weight, sums, wide_y, half_y
    kernels.call("add_norm", x.dtype, _sizes(x), tensors, eps)
    return y, total


def _sizes(x: Tensor) -> tuple[int, int]:
    return x.numel() // max(x.shape[-1], 1), x.shape[-1]


class _Norm(torch.autograd.Function):
    """Of x, add and weight: the norm of x + add, and x + add."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, add: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        y, total = _forward(x, add, weight, eps, dtype)
        ctx.save_for_backward(total, weight)
        ctx.eps, ctx.half = eps, add is not None and add.dtype is not x.dtype
        ctx.added = add is not None
        return y, total

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides its names
        ctx: Any, *grads: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        total, weight = ctx.saved_tensors
        dy, dsum = grads
        if dy is None:  # the norm was used for nothing
            return dsum, dsum if ctx.added else None, None, None, None
        wide = torch.promote_types(total.dtype, torch.float32)
        dx, dweight = kernels.fresh(total), kernels.fresh(weight, wide)
        half_dx = kernels.fresh(total, torch.bfloat16) if ctx.half else None
        rows, width = _sizes(total)
        blocks = total.new_empty(-(-rows // _BLOCK), width, dtype=wide)
        wide_dy, half_dy = (dy, None) if dy.dtype is total.dtype else (None, dy)
        tensors = total, weight, wide_dy, half_dy, dsum, dx, half_dx, blocks, dweight
        kernels.call("norm_gradient", total.dtype, (rows, width), tensors, ctx.eps)
        dadd = (dx if half_dx is None else half_dx) if ctx.added else None
        return dx, dadd, dweight.to(weight.dtype), None, None
