"""What every scan on a GPU is made of: time cut into chunks, and the fold over their ends.

A scan is three launches. In the first each chunk of `CHUNK` steps finds, from nothing, what it does
to the h before it: h becomes decay * h + end. The second folds chunk after chunk, in order, into
the carries, one h before each chunk. The third scans each chunk again and adds what its carry
gives. The order of sums depends on the place in time alone, not on rows, company or where, at
multiples of a chunk, a sequence was cut. Nothing is divided by a product of decays.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from griffin.ops.launching import launch, parts, power_of_two

CHUNK = 64
_TOGETHER = 16  # chunks whose ends are read at once: one warp has them all in its registers
_LANES = 128


@triton.jit
def after(decay, end, decay_behind, end_behind):
    """Return what two pieces of time do together, the second behind the first."""
    return decay * decay_behind, end * decay_behind + end_behind


@triton.jit
def at_row(tile, row, one):
    """Return one row of a tile; row: the numbers of its rows, (L, 1)."""
    return tl.sum(tl.where(row == one, tile, 0.0), 0)


@triton.jit
def fold_ends(
    decays,
    ends,
    first,
    carries,
    last,
    chunks,
    width: tl.constexpr,
    together: tl.constexpr,
    lanes: tl.constexpr,
    backward: tl.constexpr,
):
    """Fold (B, chunks, E) decays and ends from `first` (B, E) into carries and last.

    backward: from the last chunk on; a carry is then what comes out of the chunk behind.
    Grid: (B, E / lanes).
    """
    b = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * lanes + tl.arange(0, lanes)
    row = tl.arange(0, together)[:, None]
    real = column < width
    h = tl.load(first + b * width + column, mask=real, other=0.0)
    for begin in range(0, chunks, together):
        number = begin + row
        place = chunks - 1 - number if backward else number
        at = (b * chunks + place) * width + column[None, :]
        inside = (number < chunks) & real[None, :]
        decay = tl.load(decays + at, mask=inside, other=1.0)
        end = tl.load(ends + at, mask=inside, other=0.0)
        carry = tl.zeros([together, lanes], tl.float32)
        for one in tl.static_range(together):  # pyright: ignore[reportGeneralTypeIssues]
            carry = tl.where(row == one, h[None, :], carry)
            h = h * at_row(decay, row, one) + at_row(end, row, one)
        tl.store(carries + at, carry, mask=inside)
    tl.store(last + b * width + column, h, mask=real)


def fold(
    decays: Tensor, ends: Tensor, first: Tensor, *, backward: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the carries (B, chunks, E) and the last of all (B, E), float32.

    decays, ends: (B, chunks, E) float32; first: (B, E) float32, before the first chunk.
    """
    rows, chunks, width = decays.shape
    carries, last = decays.new_empty(decays.shape), first.new_empty(first.shape)
    launch(
        fold_ends,
        (rows, parts(width, _LANES)),
        *(decays, ends, first, carries, last, chunks),
        num_warps=1,
        width=width,
        together=_TOGETHER,
        lanes=_LANES,
        backward=backward,
    )
    return carries, last


def lanes(width: int) -> int:
    """Return how many channels one program takes, by the width alone."""
    return power_of_two(max(width, 16), 64)
