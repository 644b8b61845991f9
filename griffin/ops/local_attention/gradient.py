"""The gradient of attention on a GPU: what keys weigh is formed again, from what they summed to.

A tile of queries a program, and then a tile of keys: of the call and, where it is wanted, of the
ring. Each goes through the tiles that see it, or that it sees, in one order, so nothing is added by
chance, and there is no mask in memory and nothing else of tokens by keys.
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

from griffin.ops.launching import device_op, launch, parts, power_of_two
from griffin.ops.local_attention.sight import of_the_call, of_the_ring, reach_into_ring

TILE = 32  # tokens, and keys
_LOOK = tl.constexpr(1024)  # documents at a time, for the last token that sees a key


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
    y: Tensor,
    lse: Tensor,
    dy: Tensor,
    into_ring: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v and of the ring's two, empty where they are not wanted.

    lse: of each query, the logarithm of what its keys weigh together, (B, T, N) float32.
    """
    (rows, steps, heads, head), groups = q.shape, k.shape[2]
    form: dict[str, Any] = {
        "heads": heads,
        "groups": groups,
        "head": head,
        "wide": max(16, power_of_two(head, 1 << 30)),
        "size": size,
        "tokens": power_of_two(max(steps, 16), TILE),
        "step": TILE,
        "root": 1 / math.sqrt(head),
        "num_warps": 8,
        "maxnreg": 168,
    }
    dq, dk, dv, along = (torch.empty_like(t) for t in (q, k, v, lse))
    launch(
        _gradient_of_queries,
        (parts(steps, form["tokens"]), heads, rows),
        *(q, k, v, ring_k, ring_v, position, segment, slot_position),
        *(y, lse, dy, along, dq, steps),
        slots=power_of_two(size, 1 << 30),
        **form,
    )
    form["tokens"] = 16  # with more some Triton has too few registers
    about = position, segment, lse, along, q, dy
    grid = parts(steps, TILE), groups, rows
    launch(_gradient_of_keys, grid, *(k, v, None), *about, *(dk, dv, steps, steps), **form)
    if not into_ring or ring_k is None or ring_v is None:
        return dq, dk, dv, q.new_empty(0), q.new_empty(0)
    dring_k, dring_v = torch.empty_like(ring_k), torch.empty_like(ring_v)
    grid = parts(size, TILE), groups, rows
    given = ring_k, ring_v, slot_position
    launch(_gradient_of_keys, grid, *given, *about, *(dring_k, dring_v, steps, size), **form)
    return dq, dk, dv, dring_k, dring_v


@triton.jit
def _through(query, given, key, value, seen, sum, along, root: tl.constexpr):
    """Return what keys (H, L) weighed for queries (Q, H), and the gradient of their scores, (Q, L).

    given (Q, H): the gradient of what the queries read; along (Q,): its product with that.
    """
    score = tl.dot(query, key) * root
    weight = tl.where(seen, tl.exp(tl.where(seen, score - sum[:, None], 0.0)), 0.0)
    slope = weight * (tl.dot(given, value) - along[:, None]) * root
    return weight.to(query.dtype), slope.to(query.dtype)


@triton.jit
def _towards(
    query, given, keys, values, entry, there, seen, sum, along, total, head: tl.constexpr,
    wide: tl.constexpr, root: tl.constexpr,
):  # fmt: skip
    """Add to the gradient of queries what comes of keys that begin at `entry` (L,)."""
    at = tl.arange(0, wide)
    known = there[None, :] & (at < head)[:, None]
    key = tl.load(keys + entry[None, :] + at[:, None], mask=known, other=0.0)
    value = tl.load(values + entry[None, :] + at[:, None], mask=known, other=0.0)
    _, slope = _through(query, given, key, value, seen, sum, along, root)
    return tl.dot(slope, tl.trans(key), total)


@triton.jit
def _gradient_of_queries(
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
    dy,
    alongs,
    dq,
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
    query = tl.load(q + place, mask=inside, other=0.0)
    given = tl.load(dy + place, mask=inside, other=0.0)
    read = tl.load(y + place, mask=inside, other=0.0)
    along = tl.sum(given.to(tl.float32) * read.to(tl.float32), 1)
    tl.store(alongs + line * heads + own, along, mask=real)
    sum = tl.load(sums + line * heads + own, mask=real, other=0.0)
    segment = tl.load(segments + line, mask=real, other=-1).to(tl.int32)
    total = tl.zeros([tokens, wide], tl.float32)
    if ring_k is not None:
        position = tl.load(positions + line, mask=real, other=-1)
        held = slot_positions + row * size
        reach, oldest, least = reach_into_ring(segment, position, held, size, slots)
        for begin in range(0, reach, step):
            slot = begin + tl.arange(0, step)
            entry = ((row * size + slot) * groups + group) * head
            seen = of_the_ring(held, slot, oldest, least, size)
            total = _towards(
                query, given, ring_k, ring_v, entry, slot < size, seen, sum, along, total, head,
                wide, root,
            )  # fmt: skip
    border = tl.maximum(first - size, 0) // step * step
    for begin in range(border, tl.minimum(first + tokens, steps), step):
        other = begin + tl.arange(0, step)
        there = other < steps
        its = tl.load(segments + row * steps + other, mask=there, other=-2).to(tl.int32)
        at_position = tl.load(positions + row * steps + other, mask=there, other=-1)
        seen = of_the_call(time, segment, other, its, at_position, size)
        entry = ((row * steps + other) * groups + group) * head
        total = _towards(
            query, given, k, v, entry, there, seen, sum, along, total, head, wide, root
        )
    tl.store(dq + place, total.to(dq.dtype.element_ty), mask=inside)


@triton.jit
def _gradient_of_keys(
    keys,
    values,
    slot_positions,
    positions,
    segments,
    sums,
    alongs,
    q,
    dy,
    dk,
    dv,
    steps,
    length,
    heads: tl.constexpr,
    groups: tl.constexpr,
    head: tl.constexpr,
    wide: tl.constexpr,
    size: tl.constexpr,
    tokens: tl.constexpr,
    step: tl.constexpr,
    root: tl.constexpr,
):
    """Of a tile of a row's keys, `length` of them: the ring's where slot_positions is given."""
    row, group = tl.program_id(2).to(tl.int64), tl.program_id(1)
    first = tl.program_id(0) * step
    other = first + tl.arange(0, step)
    there = other < length
    at = tl.arange(0, wide)
    place = ((row * length + other)[:, None] * groups + group) * head + at[None, :]
    inside = there[:, None] & (at < head)[None, :]
    key = tl.load(keys + place, mask=inside, other=0.0)
    value = tl.load(values + place, mask=inside, other=0.0)
    if slot_positions is not None:
        at_position = tl.load(slot_positions + row * length + other, mask=there, other=-1)
        newest = tl.max(at_position, 0)
        # From the newest on few bits are enough.
        back = tl.maximum(at_position - newest, -size)
        mark = tl.where(at_position >= 0, back, -size - 1).to(tl.int32)
        begin, end = 0, steps
    else:
        at_position = tl.load(positions + row * length + other, mask=there, other=-1)
        mark = tl.load(segments + row * length + other, mask=there, other=-2).to(tl.int32)
        newest = tl.max(mark, 0)
        begin, end = first // tokens * tokens, tl.minimum(first + step + size, steps)
    last = begin  # behind the last token that sees one of the keys
    for start in range(begin, end, _LOOK):
        time = start + tl.arange(0, _LOOK)
        line = row * steps + time
        segment = tl.load(segments + line, mask=time < end, other=1 << 30)
        if slot_positions is not None:
            position = tl.load(positions + line, mask=time < end, other=-1)
            sees = (segment == 0) & (position - size <= newest)
        else:
            sees = segment <= newest
        last = tl.maximum(last, tl.max(tl.where(sees, time + 1, 0), 0))
    total_k = tl.zeros([step, wide], tl.float32)
    total_v = tl.zeros([step, wide], tl.float32)
    each: tl.constexpr = heads // groups
    for turn in range(begin // tokens * each, tl.cdiv(last, tokens) * each):
        own = group * each + turn % each
        time = turn // each * tokens + tl.arange(0, tokens)
        real = time < steps
        line = row * steps + time
        segment = tl.load(segments + line, mask=real, other=-1).to(tl.int32)
        if slot_positions is not None:
            position = tl.load(positions + line, mask=real, other=-1)
            goes_on = (segment == 0) & (position >= 0)
            least = tl.minimum(tl.maximum(position - size - newest, -size), 1)
            least = tl.where(goes_on, least, 1).to(tl.int32)
            seen = mark[None, :] >= least[:, None]
        else:
            seen = of_the_call(time, segment, other, mark, at_position, size)
        its_place = (line[:, None] * heads + own) * head + at[None, :]
        known = real[:, None] & (at < head)[None, :]
        query = tl.load(q + its_place, mask=known, other=0.0)
        given = tl.load(dy + its_place, mask=known, other=0.0)
        sum = tl.load(sums + line * heads + own, mask=real, other=0.0)
        along = tl.load(alongs + line * heads + own, mask=real, other=0.0)
        weight, slope = _through(
            query, given, tl.trans(key), tl.trans(value), seen, sum, along, root
        )
        total_v = tl.dot(tl.trans(weight), given, total_v)
        total_k = tl.dot(tl.trans(slope), query, total_k)
    tl.store(dk + place, total_k.to(dk.dtype.element_ty), mask=inside)
    tl.store(dv + place, total_v.to(dv.dtype.element_ty), mask=inside)


run = device_op("local_attention_gradient_on_device", _run)
