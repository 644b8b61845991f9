"""One kernel for every product of few rows: norm, product, gate, cap and residual in one launch.

Rows are taken 16 at a time, the same instructions for each 16, up to four such tiles beside each
other over weights that are read once (two of gate and up, which are two matrices). A program has a
tile of outputs and all inputs, in order. So neither the number of rows nor a row's place changes
the order of its sums.

Weights go straight to registers or shared memory, 16 bytes at a time. Whole numbers become floats
by their bits: a value in the mantissa of a float is that float plus a constant, and taking the
constant away is exact. (Converting instructions run at a quarter of the rate.)
"""

# What a kernel is compiled for decides its branches, and is a constexpr where it is assigned.
# pyright: reportPossiblyUnboundVariable=false, reportAssignmentType=false

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from griffin.ops.few_rows.laid import BITS, BLOCK, Laid
from griffin.ops.launching import TYPES, device_op, launch, parts

_TILE = 16  # rows that a matrix instruction takes
# Beside each other, as registers hold them: float32 is summed by no matrix instruction.
_MOST_TILES = {torch.bfloat16: 4, torch.float32: 1}


def few_rows(
    x: Tensor,
    weights: Laid,
    norm: Tensor | None,
    eps: float,
    gated: bool,
    cap: float,
    residual: Tensor | None,
    live: Tensor | None,
    out: Tensor,
) -> None:
    own = weights.data.dtype if weights.format is None else x.dtype
    if x.dtype not in TYPES or own != x.dtype:
        raise ValueError(
            f"the Triton product takes rows and unpacked weights of one type, float32 or bfloat16,"
            f" not {x.dtype} and {own}"
        )
    run = _op if torch.compiler.is_compiling() else _run
    run(
        x.contiguous(),
        weights.data,
        weights.scale,
        weights.bias,
        norm,
        eps,
        gated,
        cap,
        residual,
        live,
        out,
        BITS.get(weights.format or "", 0),
    )


def _run(
    x: Tensor,
    data: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    norm: Tensor | None,
    eps: float,
    gated: bool,
    cap: float,
    residual: Tensor | None,
    live: Tensor | None,
    out: Tensor,
    bits: int,
) -> None:
    rows, inputs = x.shape
    outputs = out.shape[1]
    # Two matrices at once and more than two tiles are more than 168 registers.
    most = min(_MOST_TILES[x.dtype], 2 if gated else 4)
    tiles = min(most, 1 << (parts(rows, _TILE) - 1).bit_length())
    form, options = _form(outputs, bits, norm is not None)
    grid = parts(rows, _TILE * tiles), parts(outputs, form["lanes"])
    tensors = x, data, scale, bias, norm, residual, live, out
    launch(
        _few_rows,
        grid,
        *tensors,
        rows,
        float(eps),
        float(cap),
        moved=sum(t.nbytes for t in tensors if t is not None),
        outputs=outputs,
        inputs=inputs,
        bits=bits,
        gated=gated,
        capped=cap != 0,
        tiles=tiles,
        **form,
        **options,
    )


def _form(outputs: int, bits: int, normed: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the outputs and inputs of a program's tile, and its warps: never by the rows.

    Narrow tiles fill a GPU where outputs are few; with a norm they take too many registers.
    """
    lanes = 16 if outputs <= 4096 and not normed else 32
    step = BLOCK if bits else 128
    return {"lanes": lanes, "step": step}, {"num_warps": 2 if lanes == 16 else 4, "num_stages": 4}


@triton.jit
def _rows_of(x, row, k, rows, gain, squares, inputs: tl.constexpr):
    """Return a tile of x, normed but for its root, and the sums of its squares so far."""
    inside = (row < rows)[:, None] & (k < inputs)[None, :]
    value = tl.load(x + row[:, None].to(tl.int64) * inputs + k[None, :], mask=inside, other=0.0)
    if gain is not None:
        wide = value.to(tl.float32)
        squares += tl.sum(wide * wide, 1)
        value = (wide * gain[None, :]).to(value.dtype)
    return value, squares


@triton.jit
def unpacked(words, scale, plane: tl.constexpr, bits: tl.constexpr):
    """Return the weights of a plane of words in float32; of int8 without their scale."""
    if bits == 8:
        value = ((words >> (8 * plane)) & 255) | 0x4B000000
        return value.to(tl.float32, bitcast=True) - 8388736.0
    else:
        value = words >> (4 * plane - 19) if 4 * plane >= 19 else words << (19 - 4 * plane)
        value = (value & 0x780000) | 0x3F800000
        # 1 + v / 16, so 16 of it less 24 are v - 8: exact, and so is each times a scale.
        return value.to(tl.float32, bitcast=True) * (scale * 16) - scale * 24


@triton.jit
def _finish(
    total,
    other,
    squares,
    scale,
    other_scale,
    bias,
    other_bias,
    residual,
    out,
    row,
    column,
    rows,
    eps,
    cap,
    outputs: tl.constexpr,
    inputs: tl.constexpr,
    normed: tl.constexpr,
    gated: tl.constexpr,
    capped: tl.constexpr,
):
    """Do to a tile of sums what stands behind the product, and write it."""
    if normed:
        root = 1.0 / tl.sqrt_rn(squares / inputs + eps)
        total = total * root[:, None]
        if gated:
            other = other * root[:, None]
    total = total * scale[None, :] + bias[None, :]
    if gated:
        other = other * other_scale[None, :] + other_bias[None, :]
        inner = 1.5957691216057308 * (total + 0.044715 * total * total * total)
        total = total / (1.0 + tl.exp(-inner)) * other
    if capped:
        total = cap * _tanh(total / cap)
    at = row[:, None].to(tl.int64) * outputs + column[None, :]
    inside = (row < rows)[:, None] & (column < outputs)[None, :]
    if residual is not None:
        total += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _tanh(x):
    size = tl.abs(x)
    square = x * x
    near = 62.0 / 2835.0
    near = near * square - 17.0 / 315.0
    near = near * square + 2.0 / 15.0
    near = near * square - 1.0 / 3.0
    near = near * square * x + x
    small = tl.exp(-2.0 * size)
    far = (1.0 - small) / (1.0 + small)
    far = tl.where(x < 0, -far, far)
    return tl.where(size < 0.25, near, far)


@triton.jit
def _few_rows(
    x,
    data,
    scale,
    bias,
    norm,
    residual,
    live,
    out,
    rows,
    eps,
    cap,
    outputs: tl.constexpr,
    inputs: tl.constexpr,
    bits: tl.constexpr,
    gated: tl.constexpr,
    capped: tl.constexpr,
    tiles: tl.constexpr,
    lanes: tl.constexpr,
    step: tl.constexpr,
):
    if live is not None:
        rows = tl.minimum(rows, tl.load(live))
    row = tl.program_id(0) * (16 * tiles) + tl.arange(0, 16)
    column = tl.program_id(1) * lanes + tl.arange(0, lanes)
    real = column < outputs
    # What a product reads of packed weights are words, of which a step holds so many.
    held: tl.constexpr = step * bits // 32 if bits else step
    planes: tl.constexpr = 32 // bits if bits else 1
    width: tl.constexpr = (inputs + step - 1) // step * held if bits else inputs
    all_outputs: tl.constexpr = 2 * outputs if gated else outputs
    if tl.program_id(0) * (16 * tiles) < rows:
        sum0 = tl.zeros([16, lanes], tl.float32)
        sum1 = tl.zeros([16, lanes], tl.float32)
        sum2 = tl.zeros([16, lanes], tl.float32)
        sum3 = tl.zeros([16, lanes], tl.float32)
        other0 = tl.zeros([16, lanes], tl.float32)
        other1 = tl.zeros([16, lanes], tl.float32)
        other2 = tl.zeros([16, lanes], tl.float32)
        other3 = tl.zeros([16, lanes], tl.float32)
        squares0 = tl.zeros([16], tl.float32)
        squares1 = tl.zeros([16], tl.float32)
        squares2 = tl.zeros([16], tl.float32)
        squares3 = tl.zeros([16], tl.float32)
        word = tl.arange(0, held)
        for block in range((inputs + step - 1) // step):
            place = block * held + word
            at = data + column[None, :].to(tl.int64) * width + place[:, None]
            there = real[None, :] & (place < width)[:, None]
            words = tl.load(at, mask=there, other=0)
            if gated:
                more = tl.load(at + outputs * width, mask=there, other=0)
            for plane in tl.static_range(planes):  # pyright: ignore[reportGeneralTypeIssues]
                k = block * step + plane * held + word
                if bits == 0:
                    weights = words
                    if gated:
                        others = more
                else:
                    factor = None
                    if bits == 4:
                        group = scale + (block * planes + plane) * all_outputs + column
                        factor = tl.load(group, mask=real, other=0.0).to(tl.float32)[None, :]
                    weights = unpacked(words, factor, plane, bits).to(x.dtype.element_ty)
                    if gated:
                        if bits == 4:
                            factor = tl.load(group + outputs, mask=real, other=0.0)
                            factor = factor.to(tl.float32)[None, :]
                        others = unpacked(more, factor, plane, bits).to(x.dtype.element_ty)
                gain = None
                if norm is not None:
                    gain = 1.0 + tl.load(norm + k, mask=k < inputs, other=0.0).to(tl.float32)
                value, squares0 = _rows_of(x, row, k, rows, gain, squares0, inputs)
                sum0 = tl.dot(value, weights, sum0, input_precision="ieee")
                if gated:
                    other0 = tl.dot(value, others, other0, input_precision="ieee")
                if tiles > 1:
                    value, squares1 = _rows_of(x, row + 16, k, rows, gain, squares1, inputs)
                    sum1 = tl.dot(value, weights, sum1, input_precision="ieee")
                    if gated:
                        other1 = tl.dot(value, others, other1, input_precision="ieee")
                if tiles > 2:
                    value, squares2 = _rows_of(x, row + 32, k, rows, gain, squares2, inputs)
                    sum2 = tl.dot(value, weights, sum2, input_precision="ieee")
                    if gated:
                        other2 = tl.dot(value, others, other2, input_precision="ieee")
                    value, squares3 = _rows_of(x, row + 48, k, rows, gain, squares3, inputs)
                    sum3 = tl.dot(value, weights, sum3, input_precision="ieee")
                    if gated:
                        other3 = tl.dot(value, others, other3, input_precision="ieee")
        by = tl.full([lanes], 1.0, tl.float32)
        other_by = by
        plus = tl.zeros([lanes], tl.float32)
        other_plus = plus
        if bits == 8:
            by = tl.load(scale + column, mask=real, other=0.0)
            if gated:
                other_by = tl.load(scale + outputs + column, mask=real, other=0.0)
        if bias is not None:
            plus = tl.load(bias + column, mask=real, other=0.0).to(tl.float32)
            if gated:
                other_plus = tl.load(bias + outputs + column, mask=real, other=0.0).to(tl.float32)
        normed: tl.constexpr = norm is not None
        _finish(
            sum0, other0, squares0, by, other_by, plus, other_plus, residual, out,
            row, column, rows, eps, cap, outputs, inputs, normed, gated, capped,
        )  # fmt: skip
        if tiles > 1:
            _finish(
                sum1, other1, squares1, by, other_by, plus, other_plus, residual, out,
                row + 16, column, rows, eps, cap, outputs, inputs, normed, gated, capped,
            )  # fmt: skip
        if tiles > 2:
            _finish(
                sum2, other2, squares2, by, other_by, plus, other_plus, residual, out,
                row + 32, column, rows, eps, cap, outputs, inputs, normed, gated, capped,
            )  # fmt: skip
            _finish(
                sum3, other3, squares3, by, other_by, plus, other_plus, residual, out,
                row + 48, column, rows, eps, cap, outputs, inputs, normed, gated, capped,
            )  # fmt: skip


_op: Any = device_op("few_rows", _run, mutates=("out",))
