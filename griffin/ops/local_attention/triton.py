"""Local attention on a GPU: a tile of queries a program, keys as they lie, and no mask in memory.

A tile of tokens meets first the slots of the ring, if one of its tokens can see any, then the keys
of the call that lie in its window; which of them a token sees follows from positions and documents.
Keys come in one order whatever the rows and their number, so neither changes a bit. Gradients,
float32, and the next ring are torch's.
"""

# Of Triton's language the checker knows not what a kernel's variables are.
# pyright: reportOperatorIssue=false

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from griffin.ops.launching import TYPES, device_op, launch, parts, power_of_two
from griffin.ops.local_attention import Window, eager, next_ring
from griffin.ops.local_attention.online import weigh

_QUERIES = 32  # tokens of a tile
_KEYS = 32  # at a time
_WIDEST = 256  # entries of a head


def local_attention(
    q: Tensor, k: Tensor, v: Tensor, window: Window, ring: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    if q.dtype not in TYPES:
        raise ValueError(f"the Triton kernels take float32 and bfloat16, not {q.dtype}")
    trained = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v, *(ring or ())))
    if trained or q.dtype != torch.bfloat16 or q.shape[3] > _WIDEST:
        return eager.local_attention(q, k, v, window, ring)
    old_k, old_v = ring or (None, None)
    run: Any = _op if torch.compiler.is_compiling() else _run
    given = q, k, v, old_k, old_v, window.position, window.segment
    held = None if ring is None else window.slot_position
    y = run(*(t if t is None else t.contiguous() for t in (*given, held)), window.size)
    return y, (next_ring(window, k, old_k), next_ring(window, v, old_v))


def _run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ring_k: Tensor | None,
    ring_v: Tensor | None,
    position: Tensor,
    segment: Tensor,
    slot_position: Tensor | None,
    size: int,
) -> Tensor:
    rows, steps, heads, head = q.shape
    tokens = power_of_two(max(steps, 16), _QUERIES)
    y = torch.empty_like(q)
    launch(
        _local_attention,
        (parts(steps, tokens), heads, rows),
        *(q, k, v, ring_k, ring_v, position, segment, slot_position, y, steps),
        num_warps=8 if tokens == _QUERIES else 4,
        maxnreg=168,
        heads=heads,
        groups=k.shape[2],
        head=head,
        wide=max(16, power_of_two(head, _WIDEST)),
        size=size,
        slots=power_of_two(size, 1 << 30),
        tokens=tokens,
        step=_KEYS,
        root=1 / math.sqrt(head),
    )
    return y


@triton.jit
def _see(
    queries, keys, values, entry, there, seen, total, most, mass, head: tl.constexpr,
    wide: tl.constexpr, root: tl.constexpr,
):  # fmt: skip
    """Let queries (Q, H) see keys and values that begin at `entry` (L,), where seen (Q, L)."""
    at = tl.arange(0, wide)
    known = there[None, :] & (at < head)[:, None]
    key = tl.load(keys + entry[None, :] + at[:, None], mask=known, other=0.0).to(queries.dtype)
    score = tl.dot(queries, key) * root
    weight, less, above, mass = weigh(score, seen, most, mass)
    known = there[:, None] & (at < head)[None, :]
    value = tl.load(values + entry[:, None] + at[None, :], mask=known, other=0.0)
    value = value.to(queries.dtype)
    weight = weight.to(value.dtype)
    total = tl.dot(weight, value, total * less[:, None])
    return total, above, mass


@triton.jit
def _local_attention(
    q,
    k,
    v,
    ring_k,
    ring_v,
    positions,
    segments,
    slot_positions,
    y,
    steps,
    heads: tl.constexpr,
    groups: tl.constexpr,
    head: tl.constexpr,
    wide: tl.constexpr,
    size: tl.constexpr,
    slots: tl.constexpr,
    tokens: tl.constexpr,
    step: tl.constexpr,
    root: tl.constexpr,
):
    row, own = tl.program_id(2).to(tl.int64), tl.program_id(1)
    group = own // (heads // groups)
    first = tl.program_id(0) * tokens
    time = first + tl.arange(0, tokens)
    real = time < steps
    line = row * steps + time
    at = tl.arange(0, wide)
    place = (line[:, None] * heads + own) * head + at[None, :]
    inside = real[:, None] & (at < head)[None, :]
    queries = tl.load(q + place, mask=inside, other=0.0)
    segment = tl.load(segments + line, mask=real, other=-1).to(tl.int32)
    total = tl.zeros([tokens, wide], tl.float32)
    most = tl.full([tokens], float("-inf"), tl.float32)
    mass = tl.zeros([tokens], tl.float32)
    if ring_k is not None:
        position = tl.load(positions + line, mask=real, other=-1)
        goes_on = (segment == 0) & (position >= 0)  # and is no pad
        # The oldest that one of the tile's tokens sees; from there on few bits are enough.
        oldest = tl.min(tl.where(goes_on, position - size, 1 << 62), 0)
        all = tl.arange(0, slots)
        newest = tl.max(tl.load(slot_positions + row * size + all, mask=all < size, other=-1), 0)
        reach = tl.where(newest >= oldest, size, 0)
        oldest = tl.maximum(oldest, 0)
        least = tl.where(goes_on, tl.minimum(position - size - oldest, size), size).to(tl.int32)
        for begin in range(0, reach, step):
            slot = begin + tl.arange(0, step)
            held = tl.load(slot_positions + row * size + slot, mask=slot < size, other=-1)
            held = tl.maximum(held - oldest, -size - 1).to(tl.int32)
            entry = ((row * size + slot) * groups + group) * head
            seen = (held >= 0)[None, :] & (held[None, :] >= least[:, None])
            total, most, mass = _see(
                queries, ring_k, ring_v, entry, slot < size, seen, total, most, mass, head, wide,
                root,
            )  # fmt: skip
    # From a multiple of a block's size, so that a token meets the same blocks in any tile.
    border = tl.maximum(first - size, 0) // step * step
    for begin in range(border, tl.minimum(first + tokens, steps), step):
        other = begin + tl.arange(0, step)
        there = other < steps
        its = tl.load(segments + row * steps + other, mask=there, other=-2).to(tl.int32)
        at_position = tl.load(positions + row * steps + other, mask=there, other=-1)
        back = time[:, None] - other[None, :]
        seen = (back >= 0) & (back <= size) & (segment[:, None] == its[None, :])
        # A pad sees itself, so that its softmax has something to sum.
        seen = (seen & (at_position >= 0)[None, :]) | (back == 0)
        entry = ((row * steps + other) * groups + group) * head
        total, most, mass = _see(
            queries, k, v, entry, there, seen, total, most, mass, head, wide, root
        )
    value = (total / mass[:, None]).to(y.dtype.element_ty)
    tl.store(y + place, value, mask=inside)


_op = device_op("local_attention_on_device", _run)
