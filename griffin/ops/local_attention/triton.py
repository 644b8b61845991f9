"""Local attention on a GPU: a tile of queries a program, keys as they lie, and no mask in memory.

A tile of tokens meets first the slots of the ring, if one of its tokens can see any, then the keys
of the call that lie in its window; which of them a token sees follows from positions and documents.
Keys come in one order whatever the rows and their number, so neither changes a bit. For a gradient
what each token's keys weigh together is kept beside the result (`gradient`). Float32 and the next
ring are torch's.
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

from griffin.ops import native
from griffin.ops.launching import TYPES, device_op, launch, parts, power_of_two
from griffin.ops.local_attention import Window, eager, gradient, next_ring
from griffin.ops.local_attention.online import weigh
from griffin.ops.local_attention.sight import of_the_call, of_the_ring, reach_into_ring

_QUERIES = 32  # tokens of a tile
_KEYS = 32  # at a time
_WIDEST = 256  # entries of a head


def local_attention(
    q: Tensor, k: Tensor, v: Tensor, window: Window, ring: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    if q.dtype not in TYPES:
        raise ValueError(f"the Triton kernels take float32 and bfloat16, not {q.dtype}")
    if q.dtype != torch.bfloat16 or q.shape[3] > _WIDEST:
        return eager.local_attention(q, k, v, window, ring)
    old_k, old_v = ring or (None, None)
    keys = [k, v, old_k, old_v]
    trained = native.through_torch(q, k, v, *(ring or ()))
    run: Any = _op if trained else _run
    if trained:  # of one type, as the gradients are
        keys = [t if t is None else t.to(q.dtype) for t in keys]
    given = q, *keys, window.position, window.segment
    held = None if ring is None else window.slot_position
    every = (t if t is None else t.contiguous() for t in (*given, held))
    y, _ = run(*every, window.size, trained)
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
    trained: bool,
) -> tuple[Tensor, Tensor]:
    """Return y and, if `trained`, of each query the logarithm of what its keys weigh together,
    (B, T, N) float32; else nothing in its place."""
    rows, steps, heads, head = q.shape
    tokens = power_of_two(max(steps, 16), _QUERIES)
    y = torch.empty_like(q)
    lse = q.new_empty(q.shape[:3] if trained else 0, dtype=torch.float32)
    launch(
        _local_attention,
        (parts(steps, tokens), heads, rows),
        *(q, k, v, ring_k, ring_v, position, segment, slot_position),
        *(y, lse if trained else None, steps),
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
    return y, lse


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
    sums,
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
        held = slot_positions + row * size
        reach, oldest, least = reach_into_ring(segment, position, held, size, slots)
        for begin in range(0, reach, step):
            slot = begin + tl.arange(0, step)
            entry = ((row * size + slot) * groups + group) * head
            seen = of_the_ring(held, slot, oldest, least, size)
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
        seen = of_the_call(time, segment, other, its, at_position, size)
        entry = ((row * steps + other) * groups + group) * head
        total, most, mass = _see(
            queries, k, v, entry, there, seen, total, most, mass, head, wide, root
        )
    value = (total / mass[:, None]).to(y.dtype.element_ty)
    tl.store(y + place, value, mask=inside)
    if sums is not None:
        tl.store(sums + line * heads + own, most + tl.log(mass), mask=real)


_op = device_op("local_attention_on_device", _run)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.size, _ = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *given, y, lse = ctx.saved_tensors
    into_ring = any(ctx.needs_input_grad[3:5])
    dq, dk, dv, *ring = gradient.run(*given, ctx.size, y, lse, dy.contiguous(), into_ring)
    return dq, dk, dv, *(ring if into_ring else (None, None)), None, None, None, None, None


_op.register_autograd(_backward, setup_context=_keep)
