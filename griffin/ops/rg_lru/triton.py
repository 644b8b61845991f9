"""The RG-LRU on a GPU: gates, decay and scan in three launches (`linear_scan.chunks`).

Gates are formed anew, on tensor cores, wherever a launch needs them: to write them down in float32
and read them again would take longer. So nothing of (B, T, E) is kept for training but x; of the
gradients' those of the gates are written once, and the products with the weights are torch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from griffin.ops import native
from griffin.ops.launching import TYPES, device_op, launch, parts, power_of_two
from griffin.ops.linear_scan.chunks import CHUNK, after, at_row, fold
from griffin.ops.rg_lru import Gate, eager
from griffin.ops.rg_lru.decay import decay_of, placed, rate_of, sigmoids
from griffin.ops.rg_lru.tile import both_gates, one_gate, places, scanned


def rg_lru(
    x: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    segment_pos: Tensor,
    h0: Tensor | None,
) -> tuple[Tensor, Tensor]:
    h, last, _, _ = with_carries(
        x, input_gate, recurrence_gate, recurrent_param, segment_pos, h0
    ) or (*eager.rg_lru(x, input_gate, recurrence_gate, recurrent_param, segment_pos, h0), 0, 0)
    return h, last


def rg_lru_at(
    x: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    segment_pos: Tensor,
    h0: Tensor | None,
    at: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    gates = input_gate, recurrence_gate, recurrent_param
    found = with_carries(x, *gates, segment_pos, h0)
    if found is None:
        return eager.rg_lru_at(x, *gates, segment_pos, h0, at)
    h, last, carries, _ = found
    held = []
    for steps in at:
        chunk, rest = divmod(steps, CHUNK)
        if steps == x.shape[1]:
            held.append(last)
        elif not rest:
            held.append(carries[:, chunk])
        else:  # no chunk ends there: from the last one that does, again
            here = slice(steps - rest, steps)
            held.append(rg_lru(x[:, here], *gates, segment_pos[:, here], carries[:, chunk])[1])
    return h, last, torch.stack(held, 1)


def with_carries(
    x: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    segment_pos: Tensor,
    h0: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Return h, the last h, and of each 64 steps the h before them and the product of their a.

    The latter two are (B, parts(T, 64), E) float32, without gradients. None for weights of another
    type than x that have no gradient: they are not rounded, which the kernels would do.
    """
    if x.dtype not in TYPES:
        raise ValueError(f"the Triton kernels take float32 and bfloat16, not {x.dtype}")
    h0 = x.new_zeros(x.shape[0], x.shape[2], dtype=torch.float32) if h0 is None else h0.float()
    weights = (*input_gate, *recurrence_gate)
    through_torch = native.through_torch(x, h0, recurrent_param, *weights)
    if not through_torch and any(t.dtype != x.dtype for t in weights):
        return None
    given = (t.to(x.dtype).contiguous() for t in weights)
    rest = (t.contiguous() for t in (recurrent_param, segment_pos, h0))
    run = _op if through_torch else _run
    return run(x.contiguous(), *given, *rest)


def _run(
    x: Tensor,
    input_weight: Tensor,
    input_bias: Tensor,
    recurrence_weight: Tensor,
    recurrence_bias: Tensor,
    param: Tensor,
    segment_pos: Tensor,
    h0: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return h, the last h, and of each chunk the h before it and the product of its a."""
    gates = input_weight, input_bias, recurrence_weight, recurrence_bias
    decays, ends = (_summary(x) for _ in "ab")
    inputs = x, *gates, param, segment_pos
    _launch(_unit_ends, *inputs, decays, ends)
    carries, last = fold(decays, ends, h0)
    h = torch.empty_like(x)
    _launch(_unit_out, *inputs, carries, h)
    return h, last, carries, decays


def _run_backward(
    x: Tensor,
    input_weight: Tensor,
    input_bias: Tensor,
    recurrence_weight: Tensor,
    recurrence_bias: Tensor,
    param: Tensor,
    segment_pos: Tensor,
    carries: Tensor,
    dh: Tensor,
    dlast: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x but for what comes through the gates, of both gates (all in
    x.dtype), of softplus(param) chunk by chunk, and of h0."""
    gates = input_weight, input_bias, recurrence_weight, recurrence_bias
    decays, ends = (_summary(x) for _ in "ab")
    _launch(_unit_gradient_ends, x, *gates, param, segment_pos, dh, decays, ends)
    back, dh0 = fold(decays, ends, dlast, backward=True)
    dx, dgate_i, dgate_r = (torch.empty_like(x) for _ in range(3))
    drate = _summary(x)
    results = dx, dgate_i, dgate_r, drate
    inputs = x, *gates, param, segment_pos, carries, dh, back
    _launch(_unit_gradient, *inputs, *results)
    return dx, dgate_i, dgate_r, drate, dh0


def _summary(x: Tensor) -> Tensor:
    rows, steps, width = x.shape
    return x.new_empty(rows, parts(steps, CHUNK), width, dtype=torch.float32)


def _launch(kernel: Any, x: Tensor, *others: Tensor) -> None:
    """Launch over chunks, channels (some of one gate block a program) and rows."""
    (rows, steps, width), (blocks, size) = x.shape, others[1].shape
    # As many channels as registers hold; a few that some Triton would take more are not needed.
    most = 16 if kernel is _unit_gradient else 64 if x.dtype is torch.bfloat16 else 32
    lanes = power_of_two(max(size, 16), most)
    launch(
        kernel,
        (parts(steps, CHUNK), blocks * parts(size, lanes), rows),
        *(x, *others, steps),
        maxnreg=168 if kernel is _unit_gradient else None,
        width=width,
        size=size,
        chunk=CHUNK,
        lanes=lanes,
        inner=power_of_two(max(size, 16), 64),
    )


@triton.jit
def _unit_ends(
    x,
    input_weight,
    input_bias,
    recurrence_weight,
    recurrence_bias,
    param,
    segment_pos,
    decays,
    ends,
    steps,
    width: tl.constexpr,
    size: tl.constexpr,
    chunk: tl.constexpr,
    lanes: tl.constexpr,
    inner: tl.constexpr,
):
    row, block, place, real, line, position, number = places(segment_pos, steps, size, chunk, lanes)
    decay, end = scanned(
        x, input_weight, input_bias, recurrence_weight, recurrence_bias, param, line, real,
        position, block, place, width, size, chunk, lanes, inner,
    )  # fmt: skip
    column = tl.sum(place, 0)
    at = number * width + block * size + column
    tl.store(decays + at, at_row(decay, row, chunk - 1), mask=column < size)
    tl.store(ends + at, at_row(end, row, chunk - 1), mask=column < size)


@triton.jit
def _unit_out(
    x,
    input_weight,
    input_bias,
    recurrence_weight,
    recurrence_bias,
    param,
    segment_pos,
    carries,
    h,
    steps,
    width: tl.constexpr,
    size: tl.constexpr,
    chunk: tl.constexpr,
    lanes: tl.constexpr,
    inner: tl.constexpr,
):
    _, block, place, real, line, position, number = places(segment_pos, steps, size, chunk, lanes)
    decay, end = scanned(
        x, input_weight, input_bias, recurrence_weight, recurrence_bias, param, line, real,
        position, block, place, width, size, chunk, lanes, inner,
    )  # fmt: skip
    column = block * size + place
    carry = tl.load(carries + number * width + column, mask=place < size, other=0.0)
    kind = h.dtype.element_ty
    inside = real & (place < size)
    tl.store(h + line * width + column, (carry * decay + end).to(kind), mask=inside)


@triton.jit
def _unit_gradient_ends(
    x,
    input_weight,
    input_bias,
    recurrence_weight,
    recurrence_bias,
    param,
    segment_pos,
    dh,
    decays,
    ends,
    steps,
    width: tl.constexpr,
    size: tl.constexpr,
    chunk: tl.constexpr,
    lanes: tl.constexpr,
    inner: tl.constexpr,
):
    """What a chunk does to the gradient that enters at its end, of the h before its first step."""
    row, block, place, real, line, position, number = places(segment_pos, steps, size, chunk, lanes)
    gate_r = one_gate(
        x,
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
    r = tl.sigmoid(gate_r)
    a, less = decay_of(r, rate_of(tl.load(param + column, mask=place < size, other=0.0)))
    a, _ = placed(a, less, position)
    end = a * tl.load(dh + line * width + column, mask=inside, other=0.0).to(tl.float32)
    decay, end = tl.associative_scan((a, end), 0, after, reverse=True)
    column = tl.sum(place, 0)
    at = number * width + block * size + column
    tl.store(decays + at, at_row(decay, row, 0), mask=column < size)
    tl.store(ends + at, at_row(end, row, 0), mask=column < size)


@triton.jit
def _unit_gradient(
    x,
    input_weight,
    input_bias,
    recurrence_weight,
    recurrence_bias,
    param,
    segment_pos,
    carries,
    dh,
    back,
    dx,
    dgate_i,
    dgate_r,
    drate,
    steps,
    width: tl.constexpr,
    size: tl.constexpr,
    chunk: tl.constexpr,
    lanes: tl.constexpr,
    inner: tl.constexpr,
):
    """h again from its carry; g[t] = dh[t] + a[t+1] g[t+1]; and what follows for gates and rate."""
    row, block, place, real, line, position, number = places(segment_pos, steps, size, chunk, lanes)
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
    known = place < size
    inside = real & known
    at = line * width + column
    own = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    i, r = sigmoids(gate_i, gate_r)
    rate = rate_of(tl.load(param + column, mask=known, other=0.0))
    a, less = decay_of(r, rate)
    a, scale = placed(a, tl.sqrt(less), position)
    u = scale * (i * own)
    summary = number * width + column

    decay, end = tl.associative_scan((a, u), 0, after)
    kept = tl.load(carries + summary, mask=known, other=0.0) * decay + end - u  # a[t] h[t-1]

    into = tl.load(dh + at, mask=inside, other=0.0).to(tl.float32)
    decay, end = tl.associative_scan((a, a * into), 0, after, reverse=True)
    later = tl.load(back + summary, mask=known, other=0.0)
    before = later * decay + end  # a[t] g[t], the gradient of h[t-1]
    next_row = tl.minimum(row + tl.zeros([chunk, lanes], tl.int32), chunk - 2) + 1
    g = into + tl.where(row == chunk - 1, later, tl.gather(before, next_row, 0))

    drive = g * scale
    kind = dx.dtype.element_ty
    tl.store(dx + at, (drive * i).to(kind), mask=inside)
    tl.store(dgate_i + at, (drive * own * i * (1.0 - i)).to(kind), mask=inside)
    # Through a and through the root, whose slope is clipped at 1,000; starts and pads have neither.
    slope = 0.5 / tl.maximum(scale, 5e-4)
    dlog = g * (kept - i * own * slope * (2.0 * a * a))
    dr = tl.where((position > 0) & inside, -8.0 * dlog, 0.0)
    tl.store(dgate_r + at, (dr * rate * r * (1.0 - r)).to(kind), mask=inside)
    column = tl.sum(place, 0)
    to = number * width + block * size + column
    tl.store(drate + to, tl.sum(dr * r, 0), mask=column < size)


_op = device_op("rg_lru_on_device", _run)
_backward_op = device_op("rg_lru_gradient_on_device", _run_backward)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *given, _ = inputs
    ctx.save_for_backward(*given, output[2])


def _backward(ctx: Any, dh: Tensor, dlast: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, wi, bi, wr, br, param, segment_pos, carries = ctx.saved_tensors
    dx, dgate_i, dgate_r, drate, dh0 = _backward_op(
        x, wi, bi, wr, br, param, segment_pos, carries, dh.contiguous(), dlast.contiguous()
    )
    by_block = [t.reshape(-1, *bi.shape).transpose(0, 1) for t in (x, dx, dgate_i, dgate_r)]
    inputs, whole, *gates = by_block
    found: list[Tensor] = []
    for gate, weight in zip(gates, (wi, wr), strict=True):
        whole = torch.baddbmm(whole, gate, weight.transpose(1, 2))
        found += [inputs.transpose(1, 2) @ gate, gate.sum(1)]
    dparam = drate.sum((0, 1)) * torch.sigmoid(param.float())
    dx = whole.transpose(0, 1).reshape(x.shape)
    return dx, *found, dparam.to(param.dtype), None, dh0


_op.register_autograd(_backward, setup_context=_keep)
