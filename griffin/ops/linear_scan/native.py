"""The recurrence in C++: one pass over memory, and one for the gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from griffin.ops import kernels, native


def linear_scan(x: Tensor, a: Tensor, h0: Tensor | None) -> tuple[Tensor, Tensor]:
    dtype = x.dtype
    common = torch.promote_types(dtype, a.dtype)
    wide = torch.promote_types(common, torch.float32)
    h0 = x.new_zeros(x.shape[0], x.shape[2], dtype=wide) if h0 is None else h0.to(wide)
    run = torch.ops.griffin.linear_scan if native.through_torch(x, a, h0) else _run
    h, last, _ = run(x.to(common), a.to(common), h0, torch.is_grad_enabled())
    return h.to(dtype), last.to(torch.promote_types(dtype, torch.float32))


def _run(x: Tensor, a: Tensor, h0: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return h, the last h, and every h in the wide type if it is asked for and h does not hold
    it."""
    h, last = kernels.fresh(x), kernels.fresh(h0)
    kept = keep and x.dtype != h0.dtype
    every = kernels.fresh(x if kept else x[:0], h0.dtype)
    kernels.call("scan", x.dtype, x.shape, (x, a, h0, h, last, every if kept else None))
    return h, last, every


def _run_backward(
    a: Tensor, every: Tensor, h0: Tensor, dh: Tensor, dlast: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dx, da, dh0 = kernels.fresh(a), kernels.fresh(a), kernels.fresh(h0)
    tensors = a, dh, every, h0, dlast, dx, da, dh0
    kernels.call("scan_gradient", a.dtype, a.shape, tensors)
    return dx, da, dh0


_op = torch.library.custom_op("griffin::linear_scan", _run, mutates_args=())
_backward_op = torch.library.custom_op(
    "griffin::linear_scan_backward", _run_backward, mutates_args=()
)


@_op.register_fake
def _(x: Tensor, a: Tensor, h0: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    every = x if keep and x.dtype != h0.dtype else x[:0]
    return x.new_empty(x.shape), h0.new_empty(h0.shape), h0.new_empty(every.shape)


@_backward_op.register_fake
def _(
    a: Tensor, every: Tensor, h0: Tensor, dh: Tensor, dlast: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return a.new_empty(a.shape), a.new_empty(a.shape), h0.new_empty(h0.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, a, h0, _ = inputs
    ctx.save_for_backward(a, h0, output[0] if x.dtype == h0.dtype else output[2])


def _backward(ctx: Any, dh: Tensor, dlast: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    a, h0, every = ctx.saved_tensors
    return *torch.ops.griffin.linear_scan_backward(a, every, h0, dh, dlast), None


_op.register_autograd(_backward, setup_context=_keep)
