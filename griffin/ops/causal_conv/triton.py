"""The convolution on a GPU: one launch, cache included; gradients through the torch path."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from griffin.ops import native
from griffin.ops.causal_conv import eager
from griffin.ops.launching import TYPES, device_op, launch, parts, power_of_two

_STEPS = 32


def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor, segment_pos: Tensor, cache: Tensor
) -> tuple[Tensor, Tensor]:
    if x.dtype not in TYPES:
        raise ValueError(f"the Triton kernels take float32 and bfloat16, not {x.dtype}")
    inputs = x, weight, bias, segment_pos, cache
    if torch.is_grad_enabled() and any(t.requires_grad for t in inputs):
        return eager.causal_conv(*inputs)
    run = _op if native.through_torch(x) else _run
    return run(*(t.contiguous() for t in inputs))


def _run(
    x: Tensor, weight: Tensor, bias: Tensor, segment_pos: Tensor, cache: Tensor
) -> tuple[Tensor, Tensor]:
    """Return y and the next cache."""
    rows, steps, width = x.shape
    y, left = torch.empty_like(x), torch.empty_like(cache)
    lanes = power_of_two(max(width, 16), 64)
    launch(
        _convolve,
        (parts(steps, _STEPS), parts(width, lanes), rows),
        *(x, weight, bias, segment_pos, cache, y, left, steps),
        width=width,
        taps=weight.shape[-1],
        tile=_STEPS,
        lanes=lanes,
    )
    return y, left


@triton.jit
def _input(x, cache, b, time, steps, back, between, real, column, width, taps: tl.constexpr):
    """Return what stands `back` places before tokens at `time`: in this call, or in the cache.

    real: whether it stands in this call; between: how many tokens of the call stand between.
    """
    inside = column < width
    here = (b * steps + time - back) * width + column
    there = (b * (taps - 1) + taps - 1 - back + between) * width + column
    old = (real == 0) & (back > between)
    return tl.load(x + here, mask=real & inside, other=0.0).to(tl.float32) + tl.load(
        cache + there, mask=old & inside, other=0.0
    ).to(tl.float32)


@triton.jit
def _convolve(
    x,
    weight,
    bias,
    segment_pos,
    cache,
    y,
    left,
    steps,
    width: tl.constexpr,
    taps: tl.constexpr,
    tile: tl.constexpr,
    lanes: tl.constexpr,
):
    b = tl.program_id(2).to(tl.int64)
    column = tl.program_id(1) * lanes + tl.arange(0, lanes)[None, :]
    time = tl.program_id(0) * tile + tl.arange(0, tile)[:, None]
    inside = column < width
    position = tl.load(segment_pos + b * steps + time, mask=time < steps, other=-1)
    total = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    between = tl.zeros([tile, 1], tl.int32)  # tokens of this call before the token, from the last
    open = position >= 0  # whether the document goes on so far back
    at_back = position
    for back in tl.static_range(taps):  # pyright: ignore[reportGeneralTypeIssues]
        if back > 0:
            open = open & (at_back != 0)
            earlier = (time >= back) & (time < steps)
            place = segment_pos + b * steps + time - back
            at_back = tl.load(place, mask=earlier, other=-1)
        real = at_back >= 0
        value = _input(x, cache, b, time, steps, back, between, real, column, width, taps)
        tap = tl.load(weight + column * taps + (taps - 1 - back), mask=inside, other=0.0)
        total += tl.where(open, value, 0.0) * tap.to(tl.float32)
        if back > 0:
            between += real.to(tl.int32)
    at = (b * steps + time) * width + column
    out = tl.where(position >= 0, total, 0.0).to(y.dtype.element_ty)
    tl.store(y + at, out, mask=(time < steps) & inside)

    if tl.program_id(0) == tl.num_programs(0) - 1:
        # What stands behind the last token; all that the document has not reached is zero.
        last = tl.full([1, 1], 0, tl.int32) + steps - 1
        final = tl.load(segment_pos + b * steps + last)
        count = tl.zeros([1, 1], tl.int32)
        goes_on = final >= 0
        at_behind = final
        for back in tl.static_range(taps - 1):  # pyright: ignore[reportGeneralTypeIssues]
            if back > 0:
                goes_on = goes_on & (at_behind != 0)
                behind = segment_pos + b * steps + last - back
                at_behind = tl.load(behind, mask=last >= back, other=-1)
            stands = at_behind >= 0
            moved = _input(x, cache, b, last, steps, back, count, stands, column, width, taps)
            to = (b * (taps - 1) + taps - 2 - back) * width + column
            kept = tl.load(cache + to, mask=inside, other=0.0).to(tl.float32)
            moved = tl.where(final < 0, kept, tl.where(goes_on, moved, 0.0))
            tl.store(left + to, moved.to(left.dtype.element_ty), mask=inside)
            if back > 0:
                count += stands.to(tl.int32)


_op = device_op("causal_conv_on_device", _run)
