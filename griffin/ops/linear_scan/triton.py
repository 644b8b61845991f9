"""The recurrence on a GPU: three launches each way (`chunks`); nothing is kept but the carries."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from griffin.ops import native
from griffin.ops.launching import TYPES, device_op, launch, parts
from griffin.ops.linear_scan.chunks import CHUNK, after, at_row, fold, lanes


def linear_scan(x: Tensor, a: Tensor, h0: Tensor | None) -> tuple[Tensor, Tensor]:
    common = torch.promote_types(x.dtype, a.dtype)
    if common not in TYPES:
        raise ValueError(f"the Triton kernels take float32 and bfloat16, not {common}")
    wide = torch.float32
    h0 = x.new_zeros(x.shape[0], x.shape[2], dtype=wide) if h0 is None else h0.to(wide)
    run = _op if native.through_torch(x, a, h0) else _run
    h, last, _ = run(x.to(common).contiguous(), a.to(common).contiguous(), h0.contiguous())
    return h.to(x.dtype), last


def _run(x: Tensor, a: Tensor, h0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return h, the last h and the h before each chunk."""
    steps = x.shape[1]
    decays, ends = _ends(_scan_ends, x, a)
    carries, last = fold(decays, ends, h0)
    h = torch.empty_like(x)
    launch(_scan_out, _grid(x), x, a, carries, h, steps, **_form(x))
    return h, last, carries


def _run_backward(
    x: Tensor, a: Tensor, carries: Tensor, dh: Tensor, dlast: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, a and h0."""
    steps = x.shape[1]
    decays, ends = _ends(_gradient_ends, a, dh)
    back, dh0 = fold(decays, ends, dlast, backward=True)
    dx, da = torch.empty_like(x), torch.empty_like(a)
    tensors = x, a, carries, dh, back, dx, da
    launch(_scan_gradient, _grid(x), *tensors, steps, num_warps=8, **_form(x))
    return dx, da, dh0


def _ends(kernel: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    rows, steps, width = inputs[0].shape
    decays, ends = (
        inputs[0].new_empty(rows, parts(steps, CHUNK), width, dtype=torch.float32) for _ in "ab"
    )
    launch(kernel, _grid(inputs[0]), *inputs, decays, ends, steps, **_form(inputs[0]))
    return decays, ends


def _grid(x: Tensor) -> tuple[int, int, int]:
    rows, steps, width = x.shape
    return parts(steps, CHUNK), parts(width, lanes(width)), rows


def _form(x: Tensor) -> dict[str, Any]:
    return {"width": x.shape[2], "chunk": CHUNK, "lanes": lanes(x.shape[2])}


@triton.jit
def _tile(steps, width: tl.constexpr, chunk: tl.constexpr, lanes: tl.constexpr):
    """Return of this program's tile the rows (L, 1), their time, the columns (1, N), what is real
    of both, where the first one of its sequence lies, and where the chunk's summary does."""
    part, b = tl.program_id(0), tl.program_id(2).to(tl.int64)
    row = tl.arange(0, chunk)[:, None]
    column = tl.program_id(1) * lanes + tl.arange(0, lanes)[None, :]
    time = part * chunk + row
    inside = (time < steps) & (column < width)
    return row, time, column, inside, b * steps, (b * tl.num_programs(0) + part) * width


@triton.jit
def _scan_ends(
    x,
    a,
    decays,
    ends,
    steps,
    width: tl.constexpr,
    chunk: tl.constexpr,
    lanes: tl.constexpr,
):
    row, time, column, inside, begin, summary = _tile(steps, width, chunk, lanes)
    at = (begin + time) * width + column
    decay = tl.load(a + at, mask=inside, other=1.0).to(tl.float32)
    end = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    decay, end = tl.associative_scan((decay, end), 0, after)
    place = summary + tl.sum(column, 0)
    real = tl.sum(column, 0) < width
    tl.store(decays + place, at_row(decay, row, chunk - 1), mask=real)
    tl.store(ends + place, at_row(end, row, chunk - 1), mask=real)


@triton.jit
def _scan_out(
    x,
    a,
    carries,
    h,
    steps,
    width: tl.constexpr,
    chunk: tl.constexpr,
    lanes: tl.constexpr,
):
    _, time, column, inside, begin, summary = _tile(steps, width, chunk, lanes)
    at = (begin + time) * width + column
    decay = tl.load(a + at, mask=inside, other=1.0).to(tl.float32)
    end = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    decay, end = tl.associative_scan((decay, end), 0, after)
    carry = tl.load(carries + summary + column, mask=column < width, other=0.0)
    tl.store(h + at, (carry * decay + end).to(h.dtype.element_ty), mask=inside)


@triton.jit
def _gradient_ends(
    a,
    dh,
    decays,
    ends,
    steps,
    width: tl.constexpr,
    chunk: tl.constexpr,
    lanes: tl.constexpr,
):
    """What a chunk does to the gradient that enters at its end, of the h before its first step."""
    row, time, column, inside, begin, summary = _tile(steps, width, chunk, lanes)
    at = (begin + time) * width + column
    decay = tl.load(a + at, mask=inside, other=1.0).to(tl.float32)
    end = decay * tl.load(dh + at, mask=inside, other=0.0).to(tl.float32)
    decay, end = tl.associative_scan((decay, end), 0, after, reverse=True)
    place = summary + tl.sum(column, 0)
    real = tl.sum(column, 0) < width
    tl.store(decays + place, at_row(decay, row, 0), mask=real)
    tl.store(ends + place, at_row(end, row, 0), mask=real)


@triton.jit
def _scan_gradient(
    x,
    a,
    carries,
    dh,
    back,
    dx,
    da,
    steps,
    width: tl.constexpr,
    chunk: tl.constexpr,
    lanes: tl.constexpr,
):
    """g[t] = dh[t] + a[t+1] g[t+1] is the gradient of x, g[t] h[t-1] that of a."""
    row, time, column, inside, begin, summary = _tile(steps, width, chunk, lanes)
    at = (begin + time) * width + column
    real = column < width
    # h[t-1]: the scan of what stands one step before, within the chunk.
    earlier = inside & (row > 0)
    decay = tl.load(a + at - width, mask=earlier, other=1.0).to(tl.float32)
    end = tl.load(x + at - width, mask=earlier, other=0.0).to(tl.float32)
    decay, end = tl.associative_scan((decay, end), 0, after)
    before = tl.load(carries + summary + column, mask=real, other=0.0) * decay + end
    # g[t]: what enters at the chunk's end has met the first a behind it.
    later = real & (row < chunk - 1) & (time + 1 < steps)
    decay = tl.load(a + at + width, mask=later, other=1.0).to(tl.float32)
    end = tl.load(dh + at, mask=inside, other=0.0).to(tl.float32)
    # Rows: g[t] = decay[t] g[t+1] + end[t].
    decay, end = tl.associative_scan((decay, end), 0, after, reverse=True)
    g = tl.load(back + summary + column, mask=real, other=0.0) * decay + end
    tl.store(dx + at, g.to(dx.dtype.element_ty), mask=inside)
    tl.store(da + at, (g * before).to(da.dtype.element_ty), mask=inside)


_op = device_op("linear_scan_on_device", _run)
_backward_op = device_op("linear_scan_gradient_on_device", _run_backward)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, a, _ = inputs
    ctx.save_for_backward(x, a, output[2])


def _backward(ctx: Any, dh: Tensor, dlast: Tensor, _: Tensor) -> tuple[Tensor, ...]:
    return _backward_op(*ctx.saved_tensors, dh.contiguous(), dlast.contiguous())


_op.register_autograd(_backward, setup_context=_keep)
