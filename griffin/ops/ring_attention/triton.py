"""The ring as it lies, in parts of 256 slots: a part a program, and the last one adds them up.

A softmax does not ask in which order its keys come, so slots are read as they lie; which of them
were written follows from the position alone. How a ring is cut depends on its size, and the parts
are added in their order by whichever program comes last (a counter tells), so neither the number of
rows nor who is first changes a bit. A program writes the new keys and values to those of its own
slots that they belong in, once its queries have seen what lay there. Queries of several tokens may
be more than a tile: then each tile is a program, and the last of all writes the new tokens.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from griffin.ops.launching import COUNTERS, TYPES, counters, device_op, launch, parts, power_of_two
from griffin.ops.local_attention.online import weigh

PART = 256  # slots of a program
_STEP = 32  # slots at a time
_QUERIES = 16  # of a tile: rows that a matrix instruction takes
_WIDEST = 256  # entries of a head


def ring_attention(
    qkv: Tensor,
    keys: Tensor,
    values: Tensor,
    pos: Tensor,
    turns: Tensor,
    live: Tensor | None,
    out: Tensor,
) -> None:
    if qkv.dtype not in TYPES or keys.dtype != qkv.dtype or keys.shape[3] > _WIDEST:
        raise ValueError(
            f"the Triton attention takes float32 and bfloat16 heads of at most {_WIDEST}, tokens"
            f" and ring of one type, not {qkv.dtype} and {keys.dtype} of {keys.shape[3]}"
        )
    if qkv.shape[0] * keys.shape[2] > COUNTERS:
        raise ValueError(
            f"the Triton attention takes at most {COUNTERS} rows times heads of keys, not"
            f" {qkv.shape[0]} x {keys.shape[2]}"
        )
    run = _op if torch.compiler.is_compiling() else _run
    run(qkv.contiguous(), keys, values, pos, turns, live, counters(qkv), out)


def _run(
    qkv: Tensor,
    keys: Tensor,
    values: Tensor,
    pos: Tensor,
    turns: Tensor,
    live: Tensor | None,
    done: Tensor,
    out: Tensor,
) -> None:
    (rows, steps, width), (size, groups, head) = qkv.shape, keys.shape[1:]
    heads = width // head - 2 * groups
    cuts = parts(size, PART)
    # A part's sums, and behind them its largest score and its mass.
    sums = qkv.new_empty(rows, groups, cuts, steps * heads // groups, head, dtype=torch.float32)
    marks = qkv.new_empty(*sums.shape[:4], 2, dtype=torch.float32)
    ring = 2 * rows * (size + steps) * groups * head * keys.itemsize
    tiles = parts(steps * heads // groups, _QUERIES)
    launch(
        _ring_attention,
        (cuts, groups * tiles, rows),
        *(qkv, keys, values, pos, turns, live, sums, marks, done, out),
        moved=ring + qkv.nbytes + out.nbytes + 2 * (sums.nbytes + marks.nbytes) * (cuts > 1),
        num_warps=8,
        num_stages=3,
        maxnreg=168,
        heads=heads,
        groups=groups,
        head=head,
        half=len(turns),
        wide=_wide(head),
        wide_half=_wide(len(turns)),
        wide_rest=_wide(head - 2 * len(turns)),
        slots=size,
        steps=steps,
        cuts=cuts,
        tiles=tiles,
        part=PART,
        step=_STEP,
        tile=_QUERIES,
        root=1 / math.sqrt(head),
    )


def _wide(entries: int) -> int:
    """Return the power of two that holds entries, as wide as a product must be."""
    return max(16, power_of_two(entries, _WIDEST))


@triton.jit
def _cos_and_sin(position, turns, pair, half: tl.constexpr):
    """Return cosine and sine of the angle of each pair of a head's entries, at positions (.., 1).

    position times turns wraps: what is left of it, a signed number of 64 bits, is the part of a
    turn. Its nearest quarter is taken away, so that short sums give sine and cosine of the rest.
    """
    turn = tl.load(turns + pair, mask=pair < half, other=0)
    part = (position * turn).to(tl.float32) * 5.421010862427522e-20
    quarter = tl.floor(part * 4.0 + 0.5)
    x = (part - quarter * 0.25) * 6.283185307179586
    square = x * x
    cos = 1.0 / 40320.0 - square / 3628800.0
    cos = -1.0 / 720.0 + square * cos
    cos = 1.0 / 24.0 + square * cos
    cos = 1.0 + square * (-0.5 + square * cos)
    sin = -1.0 / 5040.0 + square / 362880.0
    sin = 1.0 / 120.0 + square * sin
    sin = x + x * square * (-1.0 / 6.0 + square * sin)
    which = quarter.to(tl.int32) & 3
    odd = (which & 1) == 1
    first = tl.where(odd, sin, cos)
    second = tl.where(odd, cos, sin)
    first = tl.where((which == 1) | (which == 2), -first, first)
    return first, tl.where(which >= 2, -second, second)


@triton.jit
def _parts_of(heads, inside, pair, other, half: tl.constexpr, head: tl.constexpr):
    """Load heads (rows, 1) as their first half to be rotated, their second, and what is not."""
    paired = inside & (pair < half)
    first = tl.load(heads + pair, mask=paired, other=0.0)
    second = tl.load(heads + half + pair, mask=paired, other=0.0)
    rest = tl.load(heads + 2 * half + other, mask=inside & (other < head - 2 * half), other=0.0)
    return first, second, rest


@triton.jit
def _rotated(first, second, cos, sin):
    """Return both halves rotated, in their own type."""
    x, y = first.to(tl.float32), second.to(tl.float32)
    return (x * cos - y * sin).to(first.dtype), (y * cos + x * sin).to(first.dtype)


@triton.jit
def _add_keys(q0, q1, q2, k0, k1, k2, value, seen, sums, most, mass, root: tl.constexpr):
    """Let queries see keys, each in three parts, and values (slots, H), where seen."""
    score = tl.dot(q0, tl.trans(k0), input_precision="tf32x3")
    score = tl.dot(q1, tl.trans(k1), score, input_precision="tf32x3")
    score = tl.dot(q2, tl.trans(k2), score, input_precision="tf32x3") * root
    weight, less, above, mass = weigh(score, seen, most, mass)
    sums = tl.dot(weight.to(value.dtype), value, sums * less[:, None], input_precision="tf32x3")
    return sums, above, mass


@triton.jit
def _add_up(sums, marks, out, place, queries: tl.constexpr, cuts: tl.constexpr,
            group_place, of_group: tl.constexpr, token: tl.constexpr, head: tl.constexpr,
            wide: tl.constexpr, tile: tl.constexpr):  # fmt: skip
    """Add the parts' sums in their order, and write what the queries read."""
    at = tl.arange(0, wide)[None, :]
    for first in range(0, queries, tile):
        which = first + tl.arange(0, tile)
        mine = which < queries
        most = tl.full([tile], float("-inf"), tl.float32)
        total = tl.zeros([tile, wide], tl.float32)
        mass = tl.zeros([tile], tl.float32)
        inside = mine[:, None] & (at < head)
        for each in range(cuts):
            entry = place + each * queries + which
            score = tl.load(marks + entry * 2, mask=mine, other=0.0, cache_modifier=".cg")
            own = tl.load(marks + entry * 2 + 1, mask=mine, other=1.0, cache_modifier=".cg")
            part = tl.load(
                sums + entry[:, None] * head + at, mask=inside, other=0.0, cache_modifier=".cg"
            )
            above = tl.maximum(most, score)
            base = tl.where(above == float("-inf"), 0.0, above)
            less = tl.exp(most - base)
            more = tl.exp(score - base)
            total = total * less[:, None] + part * more[:, None]
            mass = mass * less + own * more
            most = above
        target = out + group_place + which // of_group * token + which % of_group * head
        value = (total / mass[:, None]).to(out.dtype.element_ty)
        tl.store(target[:, None] + at, value, mask=inside)


@triton.jit
def _write_new(new_keys, new_values, ring_keys, ring_values, turns, before, begin, end,
               steps: tl.constexpr, token: tl.constexpr, entry: tl.constexpr,
               slots: tl.constexpr, head: tl.constexpr, half: tl.constexpr,
               wide: tl.constexpr, wide_half: tl.constexpr, wide_rest: tl.constexpr):  # fmt: skip
    """Write the new tokens that belong in slots `begin` up to `end`."""
    at = tl.arange(0, wide)[None, :]
    pair = tl.arange(0, wide_half)[None, :]
    rest = tl.arange(0, wide_rest)[None, :]
    for t in range(steps):
        slot = ((before + t) % slots).to(tl.int32)
        if (slot >= begin) & (slot < end):
            inside = tl.arange(0, 1)[None, :] >= 0
            k0, k1, k2 = _parts_of(new_keys + t * token, inside, pair, rest, half, head)
            cos, sin = _cos_and_sin(before + t, turns, pair, half)
            k0, k1 = _rotated(k0, k1, cos, sin)
            value = tl.load(new_values + t * token + at, mask=at < head, other=0.0)
            target = ring_keys + slot * entry
            tl.store(target + pair, k0, mask=pair < half)
            tl.store(target + half + pair, k1, mask=pair < half)
            tl.store(target + 2 * half + rest, k2, mask=rest < head - 2 * half)
            tl.store(ring_values + slot * entry + at, value, mask=at < head)


@triton.jit
def _ring_attention(
    qkv,
    keys,
    values,
    pos,
    turns,
    live,
    sums,
    marks,
    done,
    out,
    heads: tl.constexpr,
    groups: tl.constexpr,
    head: tl.constexpr,
    half: tl.constexpr,
    wide: tl.constexpr,
    wide_half: tl.constexpr,
    wide_rest: tl.constexpr,
    slots: tl.constexpr,
    steps: tl.constexpr,
    cuts: tl.constexpr,
    tiles: tl.constexpr,
    part: tl.constexpr,
    step: tl.constexpr,
    tile: tl.constexpr,
    root: tl.constexpr,
):
    cut = tl.program_id(0)
    # Of one group nothing has to be remembered, which spares registers.
    group = 0 if groups == 1 else tl.program_id(1) // tiles
    b = tl.program_id(2)
    runs = b >= 0
    if live is not None:
        runs = b < tl.load(live)
    if runs:
        of_group: tl.constexpr = heads // groups
        queries: tl.constexpr = steps * of_group
        token: tl.constexpr = (heads + 2 * groups) * head
        row = b.to(tl.int64)
        before = tl.load(pos + row)
        at = tl.arange(0, wide)[None, :]
        pair = tl.arange(0, wide_half)[None, :]
        rest = tl.arange(0, wide_rest)[None, :]
        ring_keys = keys + (row * slots * groups + group) * head
        ring_values = values + (row * slots * groups + group) * head
        new = qkv + row * steps * token
        new_keys = new + (heads + group) * head
        new_values = new + (heads + groups + group) * head
        turn = (before % slots).to(tl.int32)
        begin = cut * part
        end = tl.minimum(begin + part, tl.minimum(before, slots).to(tl.int32))
        place = ((row * groups + group) * cuts + cut) * queries
        group_place = row * steps * heads * head + group * of_group * head
        which = tl.program_id(1) % tiles * tile + tl.arange(0, tile)
        time = which // of_group
        mine = (which < queries)[:, None]
        source = new + (time * token + (group * of_group + which % of_group) * head)[:, None]
        q0, q1, q2 = _parts_of(source, mine, pair, rest, half, head)
        cos, sin = _cos_and_sin((before + time)[:, None], turns, pair, half)
        q0, q1 = _rotated(q0, q1, cos, sin)
        total = tl.zeros([tile, wide], tl.float32)
        most = tl.full([tile], float("-inf"), tl.float32)
        mass = tl.zeros([tile], tl.float32)
        if cut == cuts - 1:
            # The new tokens themselves, a block of their own before the last slots: behind them it
            # would need more registers.
            other = tl.arange(0, 16)
            there = (other < steps)[:, None]
            entry = other[:, None] * token
            k0, k1, k2 = _parts_of(new_keys + entry, there, pair, rest, half, head)
            cos, sin = _cos_and_sin((before + other)[:, None], turns, pair, half)
            k0, k1 = _rotated(k0, k1, cos, sin)
            value = tl.load(new_values + entry + at, mask=there & (at < head), other=0.0)
            seen = (other < steps)[None, :] & (other[None, :] <= time[:, None])
            total, most, mass = _add_keys(
                q0, q1, q2, k0, k1, k2, value, seen, total, most, mass, root
            )
        for block in range(begin, end, step):
            slot = block + tl.arange(0, step)
            held = (slot < end)[:, None]
            entry = slot[:, None] * (groups * head)
            k0, k1, k2 = _parts_of(ring_keys + entry, held, pair, rest, half, head)
            value = tl.load(ring_values + entry + at, mask=held & (at < head), other=0.0)
            # The oldest slots are behind the window of the later ones of the new tokens.
            age = slot - turn
            age = tl.where(age < 0, age + slots, age)
            seen = (slot < end)[None, :] & (age[None, :] >= time[:, None])
            total, most, mass = _add_keys(
                q0, q1, q2, k0, k1, k2, value, seen, total, most, mass, root
            )
        inside = mine & (at < head)
        if cuts == 1:
            target = out + group_place + time * (heads * head) + which % of_group * head
            value = (total / mass[:, None]).to(out.dtype.element_ty)
            tl.store(target[:, None] + at, value, mask=inside)
        else:
            tl.store(sums + (place + which[:, None]) * head + at, total, mask=inside)
            tl.store(marks + (place + which) * 2, most, mask=which < queries)
            tl.store(marks + (place + which) * 2 + 1, mass, mask=which < queries)
        # Everything that this program reads of the ring has been read.
        tl.debug_barrier()
        if tiles == 1:
            _write_new(
                new_keys, new_values, ring_keys, ring_values, turns, before, begin, begin + part,
                steps, token, groups * head, slots, head, half, wide, wide_half, wide_rest,
            )  # fmt: skip
        if cuts * tiles > 1:
            count = done + row * groups + group
            if tl.atomic_add(count, 1, sem="acq_rel") == cuts * tiles - 1:
                tl.debug_barrier()
                tl.store(count, 0)
                if tiles > 1:
                    _write_new(
                        new_keys, new_values, ring_keys, ring_values, turns, before, 0, slots,
                        steps, token, groups * head, slots, head, half, wide, wide_half, wide_rest,
                    )  # fmt: skip
                if cuts > 1:
                    _add_up(
                        sums, marks, out, place - cut * queries, queries, cuts,
                        group_place, of_group, heads * head, head, wide, tile,
                    )  # fmt: skip


_op: Any = device_op("ring_attention", _run, mutates=("keys", "values", "done", "out"))
