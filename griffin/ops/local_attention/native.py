"""One new token's attention in C++, straight from the ring; whole sequences through the torch path."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops import native
from griffin.ops.local_attention import Window, eager, next_ring


def local_attention(
    q: Tensor, k: Tensor, v: Tensor, window: Window, ring: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    if ring is None or not _one_token(q, k, v, *ring):
        return eager.local_attention(q, k, v, window, ring)
    run = torch.ops.griffin.window_attention if native.through_torch(q) else _run
    held, position, segment, pad = window.slot_position, window.position, window.segment, window.pad
    y = run(q, k, v, *ring, held, position, segment, pad)
    return y, (next_ring(window, k, ring[0]), next_ring(window, v, ring[1]))


def _one_token(q: Tensor, *others: Tensor) -> bool:
    """Return whether the kernel covers a call: a token a row, one type, no gradient, heads of usual size."""
    if q.shape[1] != 1 or any(t.dtype != q.dtype for t in others):
        return False
    if torch.is_grad_enabled() and any(t.requires_grad for t in (q, *others)):
        return False
    group = q.shape[2] // others[0].shape[2]
    return group <= native.MOST_QUERIES and q.shape[3] <= native.LARGEST_HEAD


def _run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ring_k: Tensor,
    ring_v: Tensor,
    held: Tensor,
    position: Tensor,
    segment: Tensor,
    pad: Tensor,
) -> Tensor:
    kind = native.type_of("local_attention", q, k, v, ring_k, ring_v)
    inputs = [t.contiguous() for t in (q, k, v, ring_k, ring_v, held, position, segment, pad)]
    y = torch.empty_like(inputs[0])
    native.module().attention(
        kind,
        q.shape[0],
        q.shape[2],
        k.shape[2],
        q.shape[3],
        ring_k.shape[1],
        *native.addresses(*inputs, y),
        torch.get_num_threads(),
    )
    return y


_op = torch.library.custom_op("griffin::window_attention", _run, mutates_args=())


@_op.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ring_k: Tensor,
    ring_v: Tensor,
    held: Tensor,
    position: Tensor,
    segment: Tensor,
    pad: Tensor,
) -> Tensor:
    return q.new_empty(q.shape)
