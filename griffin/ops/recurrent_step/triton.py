"""The step in one launch: every program takes some rows and some channels of one gate block.

Each needs the convolution of its whole gate block, so all read inputs that one of them has to move
on. Programs of a block count themselves when they have read; the last one moves them on (and keeps
what they were, if asked), and sets the count back to 0 for the next step. Sums run over the inputs
of a gate in one order, whatever the number of rows.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from griffin.ops import native
from griffin.ops.launching import COUNTERS, TYPES, counters, device_op, launch, parts, power_of_two
from griffin.ops.recurrent_step import eager
from griffin.ops.rg_lru import Gate
from griffin.ops.rg_lru.decay import decay_of, placed, rate_of, sigmoids

_ROWS = 32


def recurrent_step(
    x: Tensor,
    gate: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    position: Tensor,
    conv: Tensor,
    lru: Tensor,
    live: Tensor | None,
    kept: tuple[Tensor, Tensor] | None,
) -> Tensor:
    if x.dtype not in TYPES:
        raise ValueError(f"the Triton kernels take float32 and bfloat16, not {x.dtype}")
    gates = input_gate, recurrence_gate
    weights = conv_weight, conv_bias, *input_gate, *recurrence_gate
    counts = parts(x.shape[0], _ROWS) * input_gate.bias.shape[0]
    if any(t.dtype != x.dtype for t in (gate, *weights)) or counts > COUNTERS:
        return eager.recurrent_step(
            *(x, gate, conv_weight, conv_bias, *gates, recurrent_param, position),
            *(conv, lru, live, kept),
        )
    # Halves of one product: each row is read where it lies.
    given = (t if t.stride(1) == 1 else t.contiguous() for t in (x, gate))
    others = (t.contiguous() for t in (*weights, recurrent_param, position))
    run: Any = _op if native.through_torch(x) else _run
    return run(*given, *others, conv, lru, live, *(kept or (None, None)), counters(x))


def _run(
    x: Tensor,
    gate: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    input_weight: Tensor,
    input_bias: Tensor,
    recurrence_weight: Tensor,
    recurrence_bias: Tensor,
    param: Tensor,
    position: Tensor,
    conv: Tensor,
    lru: Tensor,
    live: Tensor | None,
    kept_conv: Tensor | None,
    kept_lru: Tensor | None,
    counts: Tensor,
) -> Tensor:
    (rows, width), (blocks, size) = x.shape, input_bias.shape
    out = x.new_empty(x.shape)
    gates = input_weight, input_bias, recurrence_weight, recurrence_bias, param
    lanes = power_of_two(max(size, 16), 32)
    # A product of float32 takes many registers: inputs of a gate are read half as many at a time.
    inner = min(lanes, 16 if x.dtype == torch.float32 else 32)
    read = sum(t.numel() * t.itemsize for t in (conv_weight, conv_bias, *gates))
    times = 2 if kept_conv is None else 3
    row = (times * (conv_weight.shape[-1] - 1) + 3) * x.itemsize + times * lru.itemsize
    launch(
        _step,
        (parts(size, lanes), blocks, parts(rows, _ROWS)),
        *(x, gate, conv_weight, conv_bias, *gates, position, conv, lru, live),
        *(kept_conv, kept_lru, counts, out, rows),
        moved=read + rows * (width * row + position.itemsize),
        width=width,
        x_stride=x.stride(0),
        gate_stride=gate.stride(0),
        size=size,
        taps=conv_weight.shape[-1],
        tile=_ROWS,
        lanes=lanes,
        inner=inner,
    )
    return out


@triton.jit
def _convolved(
    x,
    conv,
    weight,
    bias,
    row,
    column,
    position,
    inside,
    width: tl.constexpr,
    stride: tl.constexpr,
    taps: tl.constexpr,
):
    """Return the convolution of a tile (rows, columns), rounded as the op rounds it."""
    real = column < width
    total = tl.load(bias + column, mask=real, other=0.0).to(tl.float32)
    known = inside & (position > 0)
    y = tl.load(x + row * stride + column, mask=inside, other=0.0).to(tl.float32)
    tap = tl.load(weight + column * taps + (taps - 1), mask=real, other=0.0).to(tl.float32)
    total = total + y * tap
    for back in tl.static_range(taps - 1):  # pyright: ignore[reportGeneralTypeIssues]
        at = (row * (taps - 1) + back) * width + column
        y = tl.load(conv + at, mask=known, other=0.0).to(tl.float32)
        tap = tl.load(weight + column * taps + back, mask=real, other=0.0).to(tl.float32)
        total = total + y * tap
    return tl.where(position < 0, 0.0, total).to(x.dtype.element_ty)


@triton.jit
def _step(
    x,
    gate,
    conv_weight,
    conv_bias,
    input_weight,
    input_bias,
    recurrence_weight,
    recurrence_bias,
    param,
    positions,
    conv,
    lru,
    live,
    kept_conv,
    kept_lru,
    counts,
    out,
    rows,
    width: tl.constexpr,
    x_stride: tl.constexpr,
    gate_stride: tl.constexpr,
    size: tl.constexpr,
    taps: tl.constexpr,
    tile: tl.constexpr,
    lanes: tl.constexpr,
    inner: tl.constexpr,
):
    part, block, group = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = (group * tile + tl.arange(0, tile)[:, None]).to(tl.int64)
    runs = row < rows
    if live is not None:
        runs = runs & (row < tl.load(live))
    position = tl.load(positions + row, mask=runs, other=-1)
    place = part * lanes + tl.arange(0, lanes)[None, :]
    column = block * size + place
    inside = runs & (place < size)

    gate_i = tl.zeros([tile, lanes], tl.float32)
    gate_r = tl.zeros([tile, lanes], tl.float32)
    for k in range(0, size, inner):
        entry = k + tl.arange(0, inner)
        seen = runs & (entry < size)[None, :]
        u = _convolved(
            x,
            conv,
            conv_weight,
            conv_bias,
            row,
            block * size + entry[None, :],
            position,
            seen,
            width,
            x_stride,
            taps,
        )
        u = tl.where(seen, u, 0.0)
        at = (block * size + entry[:, None]) * size + place
        known = (entry < size)[:, None] & (place < size)
        wi = tl.load(input_weight + at, mask=known, other=0.0)
        gate_i = tl.dot(u, wi, gate_i, input_precision="ieee")
        wr = tl.load(recurrence_weight + at, mask=known, other=0.0)
        gate_r = tl.dot(u, wr, gate_r, input_precision="ieee")
    real = place < size
    gate_i += tl.load(input_bias + column, mask=real, other=0.0).to(tl.float32)
    gate_r += tl.load(recurrence_bias + column, mask=real, other=0.0).to(tl.float32)

    u = _convolved(
        x, conv, conv_weight, conv_bias, row, column, position, inside, width, x_stride, taps
    )
    i, r = sigmoids(gate_i, gate_r)
    rate = rate_of(tl.load(param + column, mask=real, other=0.0))
    a, less = decay_of(r, rate)
    a, scale = placed(a, tl.sqrt(less), position)
    before = tl.load(lru + row * width + column, mask=inside, other=0.0)
    if kept_lru is not None:
        tl.store(kept_lru + row * width + column, before, mask=inside)
    h = a * tl.where(position == 0, 0.0, before) + scale * (i * u.to(tl.float32))
    tl.store(lru + row * width + column, h, mask=inside)
    y = tl.load(gate + row * gate_stride + column, mask=inside, other=0.0).to(tl.float32)
    inner_y = 0.7978845608028654 * (y + 0.044715 * y * y * y)
    gelu = y * tl.sigmoid(2.0 * inner_y)  # 0.5 (1 + tanh(z)) = sigmoid(2 z)
    kind = out.dtype.element_ty
    tl.store(out + row * width + column, (gelu * h.to(kind).to(tl.float32)).to(kind), mask=inside)

    # All of this program's reads are done; the last program to say so moves the inputs on.
    tl.debug_barrier()
    count = counts + group * tl.num_programs(1) + block
    if tl.atomic_add(count, 1) == tl.num_programs(0) - 1:
        for k in range(0, size, inner):
            own = k + tl.arange(0, inner)[None, :]
            moves = runs & (own < size) & (position >= 0)
            known = moves & (position > 0)
            for back in tl.static_range(taps - 1):  # pyright: ignore[reportGeneralTypeIssues]
                to = (row * (taps - 1) + back) * width + block * size + own
                if kept_conv is not None:
                    held = runs & (own < size)
                    tl.store(kept_conv + to, tl.load(conv + to, mask=held), mask=held)
                if back < taps - 2:
                    newer = tl.load(conv + to + width, mask=known, other=0.0)
                else:
                    newest = row * x_stride + block * size + own
                    newer = tl.load(x + newest, mask=moves, other=0.0)
                tl.store(conv + to, newer, mask=moves)
        tl.store(count, 0)


_op = device_op(
    "recurrent_step_on_device", _run, mutates=("conv", "lru", "kept_conv", "kept_lru", "counts")
)
