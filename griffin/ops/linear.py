"""A matrix product in which a row has the same bits whatever the other rows are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from griffin.ops import kernels, native
from griffin.ops.dispatch import natively

_WEIGHTS = 4_194_304  # widened at once: 16 MB in float32, however large the matrix is


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, as_without: bool = False
) -> Tensor:
    """Return x weight^T + bias: x (..., I), weight (O, I), bias (O,) -> (..., O) in x.dtype.

    Without gradients, in float32 and bfloat16 on the CPU, a row has the same bits alone and among
    others: a sequence is answered alike whoever shares its batch. torch's product promises nothing
    of the kind: which code it takes depends on the number of rows and threads, and on the machine.
    as_without: with gradients, too; they are torch's products, and autocast is another matter.
    """
    if _is_ours(x, weight, bias):
        y = x.new_empty(*x.shape[:-1], weight.shape[0])
        if y.numel():
            sizes = x.numel() // x.shape[-1], x.shape[-1], weight.shape[0]
            kernels.call("linear", x.dtype, sizes, (x, weight, bias, y))
        return y
    eagerly = x.is_cpu and not torch.compiler.is_compiling()
    if as_without and eagerly and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
        found: Any = _Linear.apply(x, weight, bias)
        return found
    return through_torch(x, weight, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides its names
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        (x, weight), needs = ctx.saved_tensors, ctx.needs_input_grad
        if _widens(x, weight, None):
            return _wide_gradients(x, weight, grads[0], needs)
        flat = grads[0].reshape(-1, weight.shape[0])
        return (
            grads[0] @ weight if needs[0] else None,
            flat.T @ x.reshape(-1, weight.shape[1]) if needs[1] else None,
            flat.sum(0) if needs[2] else None,
        )


def through_torch(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x weight^T + bias by torch's product; on the CPU few rows get more (`padded_rows`).

    bfloat16 on a CPU without instructions for it goes through float32, a slice of the weights at a
    time: torch's own product takes ten times as long there.
    """
    if _widens(x, weight, bias):
        found: Any = _Widened.apply(x, weight, bias)
        return found
    rows = math.prod(x.shape[:-1])
    short = padded_rows(rows, x.dtype) - rows if x.is_cpu else 0
    if not short or x.shape[-1] != weight.shape[-1]:
        return functional.linear(x, weight, bias)
    flat = functional.pad(x.reshape(rows, x.shape[-1]), (0, 0, 0, short))
    return functional.linear(flat, weight, bias)[:rows].reshape(*x.shape[:-1], weight.shape[0])


def _widens(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return (
        all(t.dtype is torch.bfloat16 for t in (x, weight, bias) if t is not None)
        and x.is_cpu
        and weight.is_cpu
        and x.shape[-1] == weight.shape[-1]
        and native.built()
        and not native.multiplies_bfloat16()
        and not torch.compiler.is_compiling()
    )


class _Widened(torch.autograd.Function):
    """Products of bfloat16 numbers in float32, rounded once; keeps nothing in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        y = x.new_empty(*x.shape[:-1], weight.shape[0])
        with torch.autocast("cpu", enabled=False):
            wide = x.float()
            for part in _slices(weight):
                some = None if bias is None else bias[part].float()
                y[..., part] = through_torch(wide, weight[part].float(), some)
        return y

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides its names
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        return _wide_gradients(x, weight, grads[0], ctx.needs_input_grad)


def _wide_gradients(
    x: Tensor, weight: Tensor, dy: Tensor, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of x, weight and bias that are needed, multiplied in float32."""
    dy = dy.reshape(-1, weight.shape[0])
    flat = x.reshape(-1, weight.shape[1]).float() if needs[1] else None
    dx = x.new_zeros(dy.shape[0], weight.shape[1], dtype=torch.float32) if needs[0] else None
    dweight = torch.empty_like(weight) if needs[1] else None
    with torch.autocast("cpu", enabled=False):
        for part in _slices(weight):
            some = dy[:, part].float()
            if dx is not None:
                dx.addmm_(some, weight[part].float())
            if dweight is not None and flat is not None:
                dweight[part] = some.T @ flat
    dbias = dy.sum(0, dtype=torch.float32).to(dy.dtype) if needs[2] else None
    return None if dx is None else dx.to(x.dtype).reshape(x.shape), dweight, dbias


def _slices(weight: Tensor) -> Iterator[slice]:
    """Yield which outputs, some at a time, so that no second copy of a large matrix is made."""
    step = max(1, _WEIGHTS // weight.shape[1])
    for first in range(0, weight.shape[0], step):
        yield slice(first, min(first + step, weight.shape[0]))


def _is_ours(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether the native product takes these; torch has the rest, and its error messages."""
    tensors = [x, weight] if bias is None else [x, weight, bias]
    return (
        natively(*tensors)
        and x.dtype != torch.float64
        and not torch.is_autocast_enabled("cpu")
        and all(type(t) in (Tensor, nn.Parameter) and t.is_cpu for t in tensors)
        and weight.dim() == 2
        and x.dim() > 0
        and x.shape[-1] == weight.shape[1] > 0
        and (bias is None or bias.shape == weight.shape[:1])
    )


def padded_rows(rows: int, dtype: torch.dtype) -> int:
    """Return how many rows to give torch so that each has the same bits, where it can.

    For very few rows torch takes other code, which sums in another order: in the 16-bit types for
    one row, in float32 for up to 15 (seen on AMD and Intel machines). That is all for a few hundred
    inputs; beyond, on machines with AMX, more rows may have other bits too. A product of few rows
    takes as long as reading the weights, so the added ones cost next to nothing.
    """
    return max(rows, 2 if dtype in (torch.bfloat16, torch.float16) else 16)


def block_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Multiply x (..., G I) by a block-diagonal matrix.

    weight: (G, I, O), bias: (G, O). Returns (..., G O) in float32 or wider: the gates of the RG-LRU
    are not rounded before their nonlinearity.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    blocks, size, out = weight.shape
    rows = x.numel() // x.shape[-1]
    if _sums_wide(x, weight, bias):
        y = _wide_product(x.reshape(rows, blocks, size).transpose(0, 1), weight, wide)
        return y.add_(bias[:, None]).transpose(0, 1).reshape(*x.shape[:-1], blocks * out)
    flat = x.reshape(rows, blocks, size).to(wide)
    if x.is_cpu and (short := padded_rows(rows, wide) - rows):
        flat = functional.pad(flat, (0, 0, 0, 0, 0, short))
    kind = "cpu" if x.is_meta else x.device.type  # meta has no autocast
    with torch.autocast(kind, enabled=False):  # which would round them to bfloat16
        y = torch.baddbmm(bias.to(wide)[:, None], flat.transpose(0, 1), weight.to(wide))
    return y[:, :rows].transpose(0, 1).reshape(*x.shape[:-1], blocks * out)


def _sums_wide(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Return whether the device multiplies 16-bit values into float32 sums, and no gradient is
    wanted: the same products, without a float32 copy of the weights."""
    half = x.dtype in (torch.bfloat16, torch.float16) and weight.dtype is x.dtype
    grads = torch.is_grad_enabled() and any(t.requires_grad for t in (x, weight, bias))
    return half and not grads and x.device.type not in ("cpu", "meta", "mps")


def _wide_product(x: Tensor, weight: Tensor, wide: torch.dtype) -> Tensor:
    return torch.bmm(x, weight, out_dtype=wide)
