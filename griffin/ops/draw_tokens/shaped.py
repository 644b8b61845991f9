"""A row's logits as they are drawn from, in Triton: with penalties, bias and masks."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def order_of(x):
    """Return whole numbers of 32 bits in the order of float32 values; -0 is 0."""
    bits = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def value_of(order):
    """Return the float32 value of a place in that order."""
    return tl.where(order < 0, order ^ 0x7FFFFFFF, order).to(tl.float32, bitcast=True)


@triton.jit
def marked(masks, place, at, size: tl.constexpr):
    """Return whether a mask in the table marks ids `at`."""
    words: tl.constexpr = (size + 31) // 32
    word = tl.load(masks + place.to(tl.int64) * words + (at >> 5), mask=at < size, other=0)
    return ((word >> (at & 31)) & 1) == 1


@triton.jit
def shaped(
    logits,
    at,
    row,
    ended,
    repetition,
    presence,
    frequency,
    places,
    counts,
    bias,
    masks,
    size: tl.constexpr,
):
    """Return a row's values of ids `at`, -inf for what may not be chosen and behind the last id.

    ended: the place of the mask that is kept back, negative for none. Programs are (rows, ..).
    """
    rows = tl.num_programs(0)
    inside = at < size
    x = tl.load(logits + row * size + at, mask=inside, other=float("-inf"))
    counted = tl.load(places + row)
    if counted >= 0:
        count = tl.load(counts + counted.to(tl.int64) * size + at, mask=inside, other=0)
        penalty = tl.load(repetition + row)
        scaled = tl.where(x > 0, tl.div_rn(x, penalty), x * penalty)
        x = tl.where(count > 0, scaled, x)
        x = x - tl.load(frequency + row) * (count >> 1).to(tl.float32)
        x = x - tl.load(presence + row) * (count > 1).to(tl.float32)
    biased = tl.load(places + rows + row)
    if biased >= 0:
        x = x + tl.load(bias + biased.to(tl.int64) * size + at, mask=inside, other=0.0)
    masked = tl.load(places + 2 * rows + row)
    if masked >= 0:
        x = tl.where(marked(masks, masked, at, size), x, float("-inf"))
    if ended >= 0:
        x = tl.where(marked(masks, ended, at, size), float("-inf"), x)
    return x
