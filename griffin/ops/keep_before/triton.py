"""A launch over all rings, whose programs copy a tile of a row's slot, and one that counts."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from griffin.ops.launching import device_op, launch, parts, power_of_two


def keep_before(
    rings: tuple[Tensor, Tensor],
    pos: Tensor,
    kept: tuple[Tensor, Tensor],
    before: Tensor,
    live: Tensor | None,
) -> None:
    run = _op if torch.compiler.is_compiling() else _run
    run(*rings, pos, *kept, before, live)


def _run(
    keys: Tensor,
    values: Tensor,
    pos: Tensor,
    kept_keys: Tensor,
    kept_values: Tensor,
    before: Tensor,
    live: Tensor | None,
) -> None:
    rows, (layers, slots, size) = before.shape[0], keys.shape[:3]
    if layers:
        entries = keys[0, 0, 0].numel()
        tile = power_of_two(entries, 1024)
        launch(
            _keep,
            (rows, layers, parts(entries, tile)),
            *(keys, values, pos, kept_keys, kept_values, live),
            moved=2 * (kept_keys.nbytes + kept_values.nbytes) + before.nbytes,
            num_warps=1,
            slots=slots,
            size=size,
            entries=entries,
            tile=tile,
        )
    tile = power_of_two(rows, 256)
    grid = (parts(rows, tile),)
    launch(_count, grid, pos, before, live, rows, moved=3 * before.nbytes, num_warps=1, tile=tile)


@triton.jit
def _keep(
    keys,
    values,
    pos,
    kept_keys,
    kept_values,
    live,
    slots: tl.constexpr,
    size: tl.constexpr,
    entries: tl.constexpr,
    tile: tl.constexpr,
):
    row, layer = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    runs = row >= 0
    if live is not None:
        runs = row < tl.load(live)
    if runs:
        inner = tl.program_id(2) * tile + tl.arange(0, tile)
        slot = ((layer * slots + row) * size + tl.load(pos + row) % size) * entries + inner
        place = (layer * tl.num_programs(0) + row) * entries + inner
        tl.store(kept_keys + place, tl.load(keys + slot, mask=inner < entries), inner < entries)
        tl.store(kept_values + place, tl.load(values + slot, mask=inner < entries), inner < entries)


@triton.jit
def _count(pos, before, live, rows, tile: tl.constexpr):
    row = tl.program_id(0) * tile + tl.arange(0, tile)
    if live is not None:
        rows = tl.minimum(rows, tl.load(live))
    read = tl.load(pos + row, mask=row < rows)
    tl.store(before + row, read, mask=row < rows)
    tl.store(pos + row, read + 1, mask=row < rows)


_op = device_op("keep_before_on_device", _run, ("pos", "kept_keys", "kept_values", "before"))
