"""Attention in C++, keys in blocks of positions: how calls are cut does not change a bit.

For a gradient, the logarithm of each query's sum of exponentials is kept beside the inputs and the
result: weights are formed again from it, block by block, so nothing of the size T x T is ever
there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from griffin.ops import kernels, native
from griffin.ops.local_attention import Window, eager, next_ring


def local_attention(
    q: Tensor, k: Tensor, v: Tensor, window: Window, ring: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    trains = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v, *(ring or ())))
    if not _covered(q, k, v):
        return eager.local_attention(q, k, v, window, ring)
    old_k, old_v = ring or (None, None)
    ring_k, ring_v = (None, None) if ring is None else (t.to(q.dtype) for t in ring)
    if trains:
        run = torch.ops.griffin.attention_for_gradient
        y, _ = run(q, k, v, ring_k, ring_v, window.position, window.size)
    else:
        run = torch.ops.griffin.window_attention if torch.compiler.is_compiling() else _run
        y = run(q, k, v, ring_k, ring_v, window.position, window.size)
    return y, (next_ring(window, k, old_k), next_ring(window, v, old_v))


def _covered(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Return whether the kernels cover a call: one type, heads of usual size and number."""
    if k.dtype != q.dtype or v.dtype != q.dtype:
        return False
    return q.shape[2] // k.shape[2] <= native.MOST_QUERIES and q.shape[3] <= native.LARGEST_HEAD


def _sizes(q: Tensor, k: Tensor, size: int) -> tuple[int, ...]:
    rows, steps, heads, width = q.shape
    return rows, steps, heads, k.shape[2], width, size


def _wide(q: Tensor) -> torch.dtype:
    return torch.promote_types(q.dtype, torch.float32)


def _run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ring_k: Tensor | None,
    ring_v: Tensor | None,
    position: Tensor,
    size: int,
) -> Tensor:
    y = kernels.fresh(q)
    tensors = q, k, v, ring_k, ring_v, position, y
    kernels.call("attention", q.dtype, _sizes(q, k, size), tensors)
    return y


def _run_for_gradient(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ring_k: Tensor | None,
    ring_v: Tensor | None,
    position: Tensor,
    size: int,
) -> tuple[Tensor, Tensor]:
    """Return y and, of each query, the logarithm of its sum of exponentials: (B, T, N) wide."""
    y, lse = kernels.fresh(q), kernels.fresh(q[..., 0], _wide(q))
    tensors = q, k, v, ring_k, ring_v, position, y, lse
    kernels.call("attention_for_gradient", q.dtype, _sizes(q, k, size), tensors)
    return y, lse


def _run_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ring_k: Tensor | None,
    ring_v: Tensor | None,
    position: Tensor,
    size: int,
    y: Tensor,
    lse: Tensor,
    dy: Tensor,
    into_ring: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, of k and v, and of the ring's; those wide, the last empty where
    they are not wanted."""
    inputs = q, k, v, ring_k, ring_v, position, y, lse, dy
    dq, dk, dv = kernels.fresh(q), *(kernels.fresh(t, lse.dtype) for t in (k, v))
    results: list[Tensor | None] = [dq, dk, dv, None, None]
    if into_ring and ring_k is not None:
        results[3:] = [kernels.fresh(ring_k, lse.dtype) for _ in range(2)]
    kernels.call("attention_gradient", q.dtype, _sizes(q, k, size), (*inputs, *results))
    dring_k, dring_v = (lse.new_empty(0) if t is None else t for t in results[3:])
    return dq, dk, dv, dring_k, dring_v


_op = torch.library.custom_op("griffin::window_attention", _run, mutates_args=())
_gradient_op = torch.library.custom_op(
    "griffin::attention_for_gradient", _run_for_gradient, mutates_args=()
)
_backward_op = torch.library.custom_op(
    "griffin::attention_backward", _run_backward, mutates_args=()
)


@_op.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ring_k: Tensor | None,
    ring_v: Tensor | None,
    position: Tensor,
    size: int,
) -> Tensor:
    return q.new_empty(q.shape)


@_gradient_op.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ring_k: Tensor | None,
    ring_v: Tensor | None,
    position: Tensor,
    size: int,
) -> Any:
    return q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=_wide(q))


@_backward_op.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ring_k: Tensor | None,
    ring_v: Tensor | None,
    position: Tensor,
    size: int,
    y: Tensor,
    lse: Tensor,
    dy: Tensor,
    into_ring: bool,
) -> Any:
    ring = ring_k.shape if into_ring and ring_k is not None else (0,)
    shapes = k.shape, v.shape, ring, ring
    return q.new_empty(q.shape), *(lse.new_empty(shape) for shape in shapes)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.size = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, ring_k, ring_v, position, y, lse = ctx.saved_tensors
    into_ring = ring_k is not None and any(ctx.needs_input_grad[3:5])
    dq, *others = torch.ops.griffin.attention_backward(
        q, k, v, ring_k, ring_v, position, ctx.size, y, lse, dy, into_ring
    )
    dk, dv, dring_k, dring_v = (t.to(q.dtype) for t in others)
    return dq, dk, dv, *((dring_k, dring_v) if into_ring else (None, None)), None, None


_gradient_op.register_autograd(_backward, setup_context=_keep)
