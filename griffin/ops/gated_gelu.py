"""The gate of the MLP and of the recurrent block, alone and with the product behind it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from griffin.ops import kernels
from griffin.ops.dispatch import natively
from griffin.ops.linear import linear, through_torch


def gated_gelu(gate: Tensor, x: Tensor) -> Tensor:
    """Return gelu(gate) * x, gelu approximated by tanh as the released models were trained.

    gate, x: of one shape and type. The native kernel rounds once, torch after the gelu too.
    Griffin (arXiv:2402.19427), sections 2.2 and 2.3.
    """
    if gate.shape != x.shape:
        raise ValueError(f"gate {tuple(gate.shape)} and x {tuple(x.shape)} do not match")
    if natively(gate, x):
        return _gated(gate, x)
    if natively(gate, x, kernel="gated_gradient"):
        found: Any = _Gated.apply(gate, x)
        return found
    return functional.gelu(gate, approximate="tanh") * x


def gated_linear(gate: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return linear(gated_gelu(gate, x), weight, bias), and keep gate and x alone for gradients.

    Their product, which the weight's gradient needs, is made again. Under autocast the weights are
    taken in its type, as by any product.
    """
    same = gate.shape == x.shape and gate.shape[-1:] == weight.shape[1:]
    if same and torch.is_grad_enabled() and natively(gate, x, kernel="gated_gradient"):
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


def _gradients(gate: Tensor, x: Tensor, dy: Tensor, again: bool) -> tuple[Tensor, ...]:
    """Return the gradients of gate and x, and `again` their product."""
    dgate, dx = kernels.fresh(gate), kernels.fresh(x)
    y = kernels.fresh(x) if again else None
    kernels.call("gated_gradient", x.dtype, (x.numel(),), (gate, x, dy, dgate, dx, y))
    return (dgate, dx) if y is None else (dgate, dx, y)


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
        return _gradients(gate, x, grads[0], False)


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
        dout = grads[0].reshape(-1, weight.shape[0])
        dy = dout @ weight.to(dout.dtype)
        needs = ctx.needs_input_grad
        dgate, dx, *y = _gradients(gate, x, dy.view(gate.shape), needs[2])
        dweight = dbias = None
        if y:
            dweight = (dout.T @ y[0].view(-1, weight.shape[1])).to(weight.dtype)
        if ctx.bias_type is not None and needs[3]:
            dbias = dout.sum(0).to(ctx.bias_type)
        return dgate, dx, dweight, dbias
