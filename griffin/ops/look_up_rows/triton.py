"""A row a program, or some of all rows: words are read, values scaled and rounded as in the
product, once."""

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

_TILE = 16  # rows of a program, where all are asked for
_WORDS = 128  # of a program that reads of one packed row: 16 bytes a lane


def look_up_rows(
    ids: Tensor | None, weights: Laid, scale: float, live: Tensor | None, out: Tensor
) -> None:
    run = _op if torch.compiler.is_compiling() else _run
    bits = BITS.get(weights.format or "", 0)
    ids = None if ids is None else ids.contiguous()
    run(ids, weights.data, weights.scale, live, scale, out, bits)


def _run(
    ids: Tensor | None,
    data: Tensor,
    parts_scale: Tensor | None,
    live: Tensor | None,
    scale: float,
    out: Tensor,
    bits: int,
) -> None:
    rows, inputs = out.shape
    held = parts(inputs, BLOCK) * BLOCK * bits // 8 if bits else inputs * data.itemsize
    tile = 1 if ids is not None else _TILE
    many = _WORDS * 32 // (BLOCK * bits) if bits and tile == 1 else 1
    launch(
        _look_up_rows,
        (parts(rows, tile), parts(inputs, BLOCK * many)),
        *(ids, data, parts_scale, live, out, float(scale)),
        rows,
        # Of int4 the scales of a block's groups lie apart; what is laid may be a part of more.
        parts_scale.stride(0) if parts_scale is not None and bits == 4 else 1,
        moved=rows * held + out.nbytes + (0 if ids is None else ids.nbytes),
        num_warps=1 if tile == 1 else 4,
        outputs=data.shape[0],
        inputs=inputs,
        bits=bits,
        step=BLOCK,
        many=many,
        tile=tile,
    )


@triton.jit
def _look_up_rows(
    ids,
    data,
    parts_scale,
    live,
    out,
    scale,
    rows,
    across,
    outputs: tl.constexpr,
    inputs: tl.constexpr,
    bits: tl.constexpr,
    step: tl.constexpr,
    many: tl.constexpr,
    tile: tl.constexpr,
):
    row = (tl.program_id(0).to(tl.int64) * tile + tl.arange(0, tile))[:, None]
    if live is not None:
        rows = tl.minimum(rows, tl.load(live))
    if ids is None:
        id = row
    else:
        # A fault that was found elsewhere may have left any id.
        id = tl.load(ids + row, mask=row < rows, other=0).to(tl.int64)
        id = tl.minimum(tl.maximum(id, 0), outputs - 1)
    held: tl.constexpr = step * bits // 32 if bits else step
    planes: tl.constexpr = 32 // bits if bits else 1
    width: tl.constexpr = (inputs + step - 1) // step * held if bits else inputs
    place = tl.program_id(1) * held * many + tl.arange(0, held * many)[None, :]
    if many == 1:
        block, word = tl.program_id(1), tl.arange(0, held)[None, :]
    else:
        block, word = place // held, place % held
    runs = row < rows
    words = tl.load(data + id * width + place, mask=runs & (place < width), other=0)
    for plane in tl.static_range(planes):  # pyright: ignore[reportGeneralTypeIssues]
        at = block * step + plane * held + word
        if bits == 0:
            value = words
        else:
            if bits == 4:
                group = parts_scale + (block * planes + plane).to(tl.int64) * across + id
                factor = tl.load(group, mask=runs & (place < width), other=0.0)
                value = unpacked(words, factor.to(tl.float32), plane, bits)
            else:
                factor = tl.load(parts_scale + id, mask=runs, other=0.0)
                value = unpacked(words, None, plane, bits) * factor
        value = value.to(out.dtype.element_ty).to(tl.float32) * scale
        kind = out.dtype.element_ty
        tl.store(out + row * inputs + at, value.to(kind), mask=runs & (at < inputs))


_op: Any = device_op("look_up_rows", _run, mutates=("out",))
