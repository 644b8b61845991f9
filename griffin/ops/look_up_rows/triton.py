"""A row a program: words are read, values scaled and rounded as in the product, once."""

# What a kernel is compiled for decides its branches, and is a constexpr where it is assigned.
# pyright: reportAssignmentType=false

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from griffin.ops.few_rows.laid import BITS, BLOCK, Laid
from griffin.ops.few_rows.triton import unpacked
from griffin.ops.launching import device_op, launch, parts


def look_up_rows(
    ids: Tensor, weights: Laid, scale: float, live: Tensor | None, out: Tensor
) -> None:
    run = _op if torch.compiler.is_compiling() else _run
    bits = BITS.get(weights.format or "", 0)
    run(ids.contiguous(), weights.data, weights.scale, live, scale, out, bits)


def _run(
    ids: Tensor,
    data: Tensor,
    parts_scale: Tensor | None,
    live: Tensor | None,
    scale: float,
    out: Tensor,
    bits: int,
) -> None:
    rows, inputs = out.shape
    tensors = ids, data, parts_scale, live, out
    held = parts(inputs, BLOCK) * BLOCK * bits // 8 if bits else inputs * data.itemsize
    launch(
        _look_up_rows,
        (rows, parts(inputs, BLOCK)),
        *tensors,
        float(scale),
        moved=rows * held + out.nbytes + ids.nbytes,
        num_warps=1,
        outputs=data.shape[0],
        inputs=inputs,
        bits=bits,
        step=BLOCK,
    )


@triton.jit
def _look_up_rows(
    ids,
    data,
    parts_scale,
    live,
    out,
    scale,
    outputs: tl.constexpr,
    inputs: tl.constexpr,
    bits: tl.constexpr,
    step: tl.constexpr,
):
    row = tl.program_id(0)
    block = tl.program_id(1)
    rows = row + 1
    if live is not None:
        rows = tl.load(live)
    # A fault that was found elsewhere may have left any id.
    id = tl.load(ids + row, mask=row < rows, other=0).to(tl.int64)
    id = tl.minimum(tl.maximum(id, 0), outputs - 1)
    held: tl.constexpr = step * bits // 32 if bits else step
    planes: tl.constexpr = 32 // bits if bits else 1
    width: tl.constexpr = (inputs + step - 1) // step * held if bits else inputs
    word = tl.arange(0, held)
    place = block * held + word
    # As wide as what it is joined with: the interpreter takes no other mask.
    runs = row + 0 * word < rows
    words = tl.load(data + id * width + place, mask=runs & (place < width), other=0)
    for plane in tl.static_range(planes):  # pyright: ignore[reportGeneralTypeIssues]
        at = block * step + plane * held + word
        if bits == 0:
            value = words
        else:
            if bits == 4:
                factor = tl.load(parts_scale + (block * planes + plane).to(tl.int64) * outputs + id)
                value = unpacked(words, factor.to(tl.float32), plane, bits)
            else:
                value = unpacked(words, None, plane, bits) * tl.load(parts_scale + id)
        value = value.to(out.dtype.element_ty).to(tl.float32) * scale
        tl.store(
            out + row.to(tl.int64) * inputs + at,
            value.to(out.dtype.element_ty),
            mask=runs & (at < inputs),
        )


_op: Any = device_op("look_up_rows", _run, mutates=("out",))
