"""Local attention through torch's fused attention, long sequences in blocks of one window.

A block of S queries needs only its own keys and those of the block before it, so the work is 2 S
keys a query whatever the length; the ring stands in for the block before the first. Where rows are
padded, tokens stand further from the ring than they are, and every block looks at it as well.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from griffin.ops.local_attention import Window, next_ring


def local_attention(
    q: Tensor, k: Tensor, v: Tensor, window: Window, ring: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    steps, size = q.shape[1], window.size
    run = _dense if steps <= 2 * size else _blocks
    y = run(q, k, v, window, ring)
    old_k, old_v = ring or (None, None)
    return y, (next_ring(window, k, old_k), next_ring(window, v, old_v))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """q (B, T, N, H), k and v (B, L, K, H), mask (B, T, L) bool -> (B, T, N, H)."""
    rows, steps, heads, width = q.shape
    k, v = (x.to(q.dtype).transpose(1, 2) for x in (k, v))
    if steps > 1:
        k, v = (_for_each_head(x, heads) for x in (k, v))
        y = functional.scaled_dot_product_attention(
            q.transpose(1, 2), k, v, attn_mask=mask[:, None]
        )
        return y.transpose(1, 2)
    # One token: the query heads of a key head stand in for its queries, so that keys are read once,
    # not once a head; and row by row, because torch sums a row differently in company.
    q = q.reshape(rows, k.shape[1], -1, width)
    mask = mask[:, None].expand(-1, -1, q.shape[2], -1)
    parts = zip(q.split(1), k.split(1), v.split(1), mask.split(1), strict=True)
    y = [functional.scaled_dot_product_attention(q, k, v, attn_mask=m) for q, k, v, m in parts]
    return torch.cat(y).reshape(rows, 1, heads, width)


def _for_each_head(x: Tensor, heads: int) -> Tensor:
    """(B, K, L, H) -> (B, N, L, H), without a copy where there is one key head."""
    if x.shape[1] == 1:
        return x.expand(-1, heads, -1, -1)
    return x.repeat_interleave(heads // x.shape[1], dim=1)


def _dense(
    q: Tensor, k: Tensor, v: Tensor, window: Window, ring: tuple[Tensor, Tensor] | None
) -> Tensor:
    index = torch.arange(q.shape[1], device=q.device)
    back = index[:, None] - index
    mask = (back >= 0) & (back <= window.size)
    mask = mask & (window.segment[:, :, None] == window.segment[:, None]) & ~window.pad[:, None]
    mask = mask | (back == 0)  # a pad sees itself, so that its softmax has something to sum
    if ring is None:
        return _attend(q, k, v, mask)
    mask = torch.cat([_ring_mask(window, slice(None)), mask], dim=2)
    keys = torch.cat([ring[0].to(k.dtype), k], dim=1)
    values = torch.cat([ring[1].to(v.dtype), v], dim=1)
    return _attend(q, keys, values, mask)


def _blocks(
    q: Tensor, k: Tensor, v: Tensor, window: Window, ring: tuple[Tensor, Tensor] | None
) -> Tensor:
    rows, steps = q.shape[:2]
    size = window.size
    far = ring is not None and _may_be_padded(window)
    count = -(-steps // size)
    short = count * size - steps

    def cut(x: Tensor, value: int = 0) -> Tensor:  # (B, T, ...) -> (B, count, S, ...)
        padded = functional.pad(x, [0, 0] * (x.dim() - 2) + [0, short], value=value)
        return padded.unflatten(1, (count, size))

    # Each block with the one before it: (B, count, 2 S, ...).
    def paired(new: Tensor, old: Tensor) -> Tensor:
        return torch.cat([torch.cat([old[:, None], new[:, :-1]], dim=1), new], dim=2)

    nothing = torch.zeros_like(k[:, :1]).expand(-1, size, -1, -1)
    old_k, old_v = (nothing, nothing) if ring is None or far else ring
    keys = paired(cut(k), old_k.to(k.dtype))
    values = paired(cut(v), old_v.to(v.dtype))

    none = window.segment.new_full((rows, size), -1)  # a document no token belongs to
    hidden = torch.where(window.pad, -2, window.segment)
    key_segment = paired(cut(hidden, -3), none)
    query_segment = cut(window.segment, -3)
    index = torch.arange(size, device=q.device)
    back = size + index[:, None] - torch.arange(2 * size, device=q.device)
    mask = (query_segment[..., None] == key_segment[:, :, None]) & (back >= 0) & (back <= size)
    mask = mask | (back == 0)
    if ring is not None and not far:
        mask[:, 0, :, :size] = _ring_mask(window, slice(0, size))
    elif ring is not None:
        mask = torch.cat([cut(_ring_mask(window, slice(None))), mask], dim=3)
        every = (t[:, None].expand(-1, count, -1, -1, -1).to(k.dtype) for t in ring)
        keys, values = (
            torch.cat(parts, dim=2) for parts in zip(every, (keys, values), strict=True)
        )
    y = _attend(cut(q).flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1), mask.flatten(0, 1))
    return y.unflatten(0, (rows, count)).flatten(1, 2)[:, :steps]


def _may_be_padded(window: Window) -> bool:
    """Return whether rows may be padded: on the CPU whether one is, elsewhere without looking."""
    return not window.runs_on and (not window.pad.is_cpu or bool(window.pad.any()))


def _ring_mask(window: Window, queries: slice) -> Tensor:
    """Which ring slots each query sees, (B, T, S): its own document's, not older than the
    window."""
    position = window.position[:, queries, None]
    held = window.slot_position[:, None]
    own = (window.segment[:, queries] == 0) & ~window.pad[:, queries]
    return own[:, :, None] & (held >= 0) & (held >= position - window.size)
