"""What a token sees, for the kernels of a GPU: of the keys of its call, and of those in the ring.

All of it follows from positions and documents, a tile at a time, so no mask is ever in memory.
"""

# Of Triton's language the checker knows not what a kernel's variables are.
# pyright: reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def of_the_call(time, segment, other, its, at_position, size: tl.constexpr):
    """Return which keys (L,) of the call the queries (Q,) see, (Q, L).

    time, segment: of each query; other, its, at_position: time, document and position of each key.
    """
    back = time[:, None] - other[None, :]
    seen = (back >= 0) & (back <= size) & (segment[:, None] == its[None, :])
    # A pad sees itself, so that its softmax has something to sum.
    return (seen & (at_position >= 0)[None, :]) | (back == 0)


@triton.jit
def reach_into_ring(segment, position, held, size: tl.constexpr, slots: tl.constexpr):
    """Return how many slots of a row's ring a tile of queries has to look at, 0 or all, and for
    `of_the_ring` the oldest position that one sees, and from which on each does.

    held: where the positions are that the row's slots hold; slots: their number or more.
    """
    goes_on = (segment == 0) & (position >= 0)  # and is no pad
    oldest = tl.min(tl.where(goes_on, position - size, 1 << 62), 0)
    all = tl.arange(0, slots)
    newest = tl.max(tl.load(held + all, mask=all < size, other=-1), 0)
    reach = tl.where(newest >= oldest, size, 0)
    # From the oldest on few bits are enough.
    oldest = tl.maximum(oldest, 0)
    least = tl.where(goes_on, tl.minimum(position - size - oldest, size), size).to(tl.int32)
    return reach, oldest, least


@triton.jit
def of_the_ring(held, slot, oldest, least, size: tl.constexpr):
    """Return which slots (L,) of a row's ring the queries (Q,) see, (Q, L)."""
    at = tl.load(held + slot, mask=slot < size, other=-1)
    at = tl.maximum(at - oldest, -size - 1).to(tl.int32)
    return (at >= 0)[None, :] & (at[None, :] >= least[:, None])
