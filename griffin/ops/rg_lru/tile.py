"""A tile of the unit in Triton, 64 steps of some channels of a gate block: its gates, its scan."""

from __future__ import annotations

import triton
import triton.language as tl

from griffin.ops.linear_scan.chunks import after
from griffin.ops.rg_lru.decay import decay_of, placed, rate_of, sigmoids


@triton.jit
def places(
    segment_pos,
    steps,
    size: tl.constexpr,
    chunk: tl.constexpr,
    lanes: tl.constexpr,
):
    """Return of this program's tile: the rows (L, 1), the gate block, the columns in it (1, N),
    what is real, the row of values that each row is, its position, and the chunk's number."""
    part, b = tl.program_id(0), tl.program_id(2).to(tl.int64)
    across = (size + lanes - 1) // lanes
    block = tl.program_id(1) // across
    place = (tl.program_id(1) % across) * lanes + tl.arange(0, lanes)[None, :]
    row = tl.arange(0, chunk)[:, None]
    time = part * chunk + row
    real = time < steps
    line = b * steps + time
    position = tl.load(segment_pos + line, mask=real, other=-1)
    return row, block, place, real, line, position, b * tl.num_programs(0) + part


@triton.jit
def one_gate(
    x,
    weight,
    bias,
    line,
    real,
    block,
    place,
    width: tl.constexpr,
    size: tl.constexpr,
    chunk: tl.constexpr,
    lanes: tl.constexpr,
    inner: tl.constexpr,
):
    """Return a gate of a tile before its sigmoid; inputs are summed in order."""
    total = tl.zeros([chunk, lanes], tl.float32)
    for k in range(0, size, inner):
        entry = k + tl.arange(0, inner)
        at = line * width + block * size + entry[None, :]
        inputs = tl.load(x + at, mask=real & (entry < size)[None, :], other=0.0)
        at = (block * size + entry[:, None]) * size + place
        known = (entry < size)[:, None] & (place < size)
        total = tl.dot(
            inputs, tl.load(weight + at, mask=known, other=0.0), total, input_precision="ieee"
        )
    column = block * size + place
    return total + tl.load(bias + column, mask=place < size, other=0.0).to(tl.float32)


@triton.jit
def both_gates(
    x,
    input_weight,
    input_bias,
    recurrence_weight,
    recurrence_bias,
    line,
    real,
    block,
    place,
    width: tl.constexpr,
    size: tl.constexpr,
    chunk: tl.constexpr,
    lanes: tl.constexpr,
    inner: tl.constexpr,
):
    """Return both gates of a tile, x read once for both."""
    gate_i = tl.zeros([chunk, lanes], tl.float32)
    gate_r = tl.zeros([chunk, lanes], tl.float32)
    for k in range(0, size, inner):
        entry = k + tl.arange(0, inner)
        at = line * width + block * size + entry[None, :]
        inputs = tl.load(x + at, mask=real & (entry < size)[None, :], other=0.0)
        at = (block * size + entry[:, None]) * size + place
        known = (entry < size)[:, None] & (place < size)
        wi = tl.load(input_weight + at, mask=known, other=0.0)
        gate_i = tl.dot(inputs, wi, gate_i, input_precision="ieee")
        wr = tl.load(recurrence_weight + at, mask=known, other=0.0)
        gate_r = tl.dot(inputs, wr, gate_r, input_precision="ieee")
    column = block * size + place
    gate_i += tl.load(input_bias + column, mask=place < size, other=0.0).to(tl.float32)
    gate_r += tl.load(recurrence_bias + column, mask=place < size, other=0.0).to(tl.float32)
    return gate_i, gate_r


@triton.jit
def scanned(
    x,
    input_weight,
    input_bias,
    recurrence_weight,
    recurrence_bias,
    param,
    line,
    real,
    position,
    block,
    place,
    width: tl.constexpr,
    size: tl.constexpr,
    chunk: tl.constexpr,
    lanes: tl.constexpr,
    inner: tl.constexpr,
):
    """Return what a tile does to the h before it, up to and with each of its rows."""
    gate_i, gate_r = both_gates(
        x,
        input_weight,
        input_bias,
        recurrence_weight,
        recurrence_bias,
        line,
        real,
        block,
        place,
        width,
        size,
        chunk,
        lanes,
        inner,
    )
    column = block * size + place
    inside = real & (place < size)
    own = tl.load(x + line * width + column, mask=inside, other=0.0).to(tl.float32)
    i, r = sigmoids(gate_i, gate_r)
    a, less = decay_of(r, rate_of(tl.load(param + column, mask=place < size, other=0.0)))
    a, scale = placed(a, tl.sqrt(less), position)
    return tl.associative_scan((a, scale * (i * own)), 0, after)
