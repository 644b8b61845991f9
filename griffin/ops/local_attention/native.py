"""Attention in C++, keys in blocks of positions: how calls are cut does not change a bit."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops import kernels, native
from griffin.ops.local_attention import Window, eager, next_ring


def local_attention(
    q: Tensor, k: Tensor, v: Tensor, window: Window, ring: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    if not _covered(q, k, v, *(ring or ())):
        return eager.local_attention(q, k, v, window, ring)
    old_k, old_v = ring or (None, None)
    run = torch.ops.griffin.window_attention if native.through_torch(q) else _run
    y = run(q, k, v, old_k, old_v, window.position, window.size)
    return y, (next_ring(window, k, old_k), next_ring(window, v, old_v))


def _covered(q: Tensor, k: Tensor, *others: Tensor) -> bool:
    """Return whether the kernel covers a call: one type, no gradient, heads of usual size and
    number."""
    if any(t.dtype != q.dtype for t in (k, *others)):
        return False
    if torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, *others)):
        return False
    return q.shape[2] // k.shape[2] <= native.MOST_QUERIES and q.shape[3] <= native.LARGEST_HEAD


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
    rows, steps, heads, width = q.shape
    sizes = rows, steps, heads, k.shape[2], width, size
    kernels.call("attention", q.dtype, sizes, (q, k, v, ring_k, ring_v, position, y))
    return y


_op = torch.library.custom_op("griffin::window_attention", _run, mutates_args=())


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
