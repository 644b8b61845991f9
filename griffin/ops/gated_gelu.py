"""The gate of the MLP and of the recurrent block, alone and with the product behind it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from griffin.ops import kernels, native
from griffin.ops.dispatch import natively
from griffin.ops.linear import linear, through_torch

# Tokens whose product is made again at a time, so that a long row needs room for no more.
_TOGETHER = 4096


def gated_gelu(gate: Tensor, x: Tensor) -> Tensor:
    """Return gelu(gate) * x, gelu approximated by tanh as the released models were trained.

    gate, x: of one shape and type. The native kernel rounds once, torch after the gelu too.
    Griffin (arXiv:2402.19427), sections 2.2 and 2.3.
    """
    if gate.shape != x.shape:
        raise ValueError(f"gate {tuple(gate.shape)} and x {tuple(x.shape)} do not match")
    if natively(gate, x):
        return _gated(gate, x)
    if natively(gate, x, trains=True):
        found: Any = _Gated.apply(gate, x)
        return found
    return functional.gelu(gate, approximate="tanh") * x


def gated_linear(gate: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return linear(gated_gelu(gate, x), weight, bias), and keep gate and x alone for gradients.

    Their product, which the weight's gradient needs, is made again. Under autocast the weights are
    taken in its type, as by any product.
    """
    same = gate.shape == x.shape and gate.shape[-1:] == weight.shape[1:]
    if same and torch.is_grad_enabled() and natively(gate, x, trains=True):
        weights = (weight,) if bias is None else (weight, bias)
        if any(t.requires_grad for t in (gate, x, *weights)):
            cast = torch.is_autocast_enabled("cpu") or weight.dtype is gate.dtype
            if cast and all(t.is_cpu for t in weights):
                found: Any = _GatedLinear.apply(gate, x, weight, bias)
                return found
    return linear(gated_gelu(gate, x), weight, bias)


def _gated(gate: Tensor, x: Tensor) -> Tensor:
    y = kernels.fresh(x)
    kernels.call("gated", x.dtype, (x.numel(),), (gate, x, y))
    return y


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(gate, x)
        return _gated(gate, x)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides its names
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor, ...]:
        gate, x = ctx.saved_tensors
        dgate, dx = kernels.fresh(gate), kernels.fresh(x)
        tensors = gate, x, grads[0], dgate, dx, None
        kernels.call("gated_gradient", x.dtype, (x.numel(),), tensors)
        return dgate, dx


class _GatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(gate, x, weight)
        ctx.bias_type = None if bias is None else bias.dtype
        with torch.autocast("cpu", enabled=False):
            b = None if bias is None else bias.to(gate.dtype)
            return through_torch(_gated(gate, x), weight.to(gate.dtype), b)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides its names
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        gate, x, weight = ctx.saved_tensors
        outputs, inputs = weight.shape
        dout, needs = grads[0].reshape(-1, outputs), ctx.needs_input_grad
        dgate, dx = kernels.fresh(gate), kernels.fresh(x)
        wide = torch.promote_types(weight.dtype, torch.float32)
        dweight = weight.new_zeros(weight.shape, dtype=wide) if needs[2] else None
        # Where torch's products of bfloat16 numbers are slow, as `linear` does.
        slow = dout.dtype is torch.bfloat16 and not native.multiplies_bfloat16()
        kind = wide if slow else dout.dtype
        back = weight.to(kind)
        flat = [t.reshape(-1, inputs).split(_TOGETHER) for t in (gate, x, dgate, dx)]
        for one, part in zip(zip(*flat, strict=True), dout.split(_TOGETHER), strict=True):
            some = part.to(kind)
            dy = (some @ back).to(dout.dtype)
            y = None if dweight is None else kernels.fresh(dy)
            tensors = one[0], one[1], dy, one[2], one[3], y
            kernels.call("gated_gradient", dy.dtype, (dy.numel(),), tensors)
            if dweight is not None and y is not None:
                if kind is wide:
                    dweight.addmm_(some.T, y.to(kind))
                else:
                    dweight += some.T @ y
        dbias = dout.sum(0).to(ctx.bias_type) if ctx.bias_type is not None and needs[3] else None
        return dgate, dx, None if dweight is None else dweight.to(weight.dtype), dbias
