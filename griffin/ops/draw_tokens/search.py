"""The least value that a row keeps, found in Triton without sorting: by halving, eightfold.

Float32 values have an order in whole numbers (`shaped.order_of`). A pass over a row says of eight
places in that order how many values are there or above and what their mass is; the next pass looks
between two of them. As soon as few enough values are left they are written down one behind the
other, and passes go over those alone. Sums are float64 and in one order, whatever the company.
"""

# Of Triton's language the checker does not know what a kernel's variables are.
# pyright: reportOperatorIssue=false, reportArgumentType=false

from __future__ import annotations

import triton
import triton.language as tl

from griffin.ops.draw_tokens.shaped import order_of, shaped


@triton.jit
def _values(
    logits, lists, listed, at, length, row, ended, repetition, presence, frequency, places,
    counts, bias, masks, size: tl.constexpr, room: tl.constexpr,
):  # fmt: skip
    """Return a row's values, or those of its list."""
    if listed > 0:
        x = tl.load(lists + row * room + at, mask=at < length, other=float("-inf"))
    else:
        x = shaped(
            logits, at, row, ended, repetition, presence, frequency, places, counts, bias, masks,
            size,
        )  # fmt: skip
    return x


@triton.jit
def totals(
    low, high, best, heat, logits, lists, listed, length, row, ended, repetition, presence,
    frequency, places, counts, bias, masks, size: tl.constexpr, room: tl.constexpr,
    tile: tl.constexpr, ways: tl.constexpr,
):  # fmt: skip
    """Return mass and number of the values from each of so many places between low and high on."""
    way = tl.arange(0, ways)
    edge = (low + (high - low) * way // ways).to(tl.int32)
    mass = tl.zeros([tile, ways], tl.float64)
    number = tl.zeros([tile, ways], tl.int32)
    for first in range(0, length, tile):
        at = first + tl.arange(0, tile)
        x = _values(
            logits, lists, listed, at, length, row, ended, repetition, presence, frequency, places,
            counts, bias, masks, size, room,
        )  # fmt: skip
        weight = tl.exp((x - best) / heat).to(tl.float64)
        here = (order_of(x)[:, None] >= edge[None, :]) & (at < length)[:, None]
        mass += tl.where(here, weight[:, None], 0.0)
        number += here.to(tl.int32)
    return tl.sum(mass, 0), tl.sum(number, 0)


@triton.jit
def search(
    goal, low, high, best, heat, logits, lists, listed, length, row, ended, repetition, presence,
    frequency, places, counts, bias, masks, by_mass: tl.constexpr, size: tl.constexpr,
    room: tl.constexpr, tile: tl.constexpr, ways: tl.constexpr,
):  # fmt: skip
    """Return the highest place from which on there is `goal`, of mass or of values, what there is
    above it, and whether and how long the list is.

    From `low` on there is so much, from `high` on there is not.
    """
    way = tl.arange(0, ways)
    above = goal * 0
    while high - low > 1:
        mass, number = totals(
            low, high, best, heat, logits, lists, listed, length, row, ended, repetition, presence,
            frequency, places, counts, bias, masks, size, room, tile, ways,
        )  # fmt: skip
        total = mass if by_mass else number.to(tl.float64)
        found = tl.maximum(tl.sum((total >= goal).to(tl.int32), 0) - 1, 0)
        is_last = found + 1 == ways
        above = tl.where(is_last, above, tl.sum(tl.where(way == found + 1, total, 0.0), 0))
        held = tl.sum(tl.where(way == found, number, 0), 0)
        span = high - low
        high = tl.where(is_last, high, low + span * (found + 1) // ways)
        low = low + span * found // ways
        if (listed == 0) & (held <= room):
            kept = held * 0
            for first in range(0, length, tile):
                at = first + tl.arange(0, tile)
                x = shaped(
                    logits, at, row, ended, repetition, presence, frequency, places, counts, bias,
                    masks, size,
                )  # fmt: skip
                mine = (order_of(x) >= low) & (at < length)
                place = kept + tl.cumsum(mine.to(tl.int32), 0) - 1
                tl.store(lists + row * room + place, x, mask=mine)
                kept += tl.sum(mine.to(tl.int32), 0)
            # Others of this program read what was written.
            tl.debug_barrier()
            listed = listed + 1
            length = kept
    return low, above, listed, length
