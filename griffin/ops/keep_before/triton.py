"""A launch over all layers, whose programs copy a tile of each of a row's tensors, and one that
counts."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from griffin.ops.keep_before import Stacked
from griffin.ops.launching import launch, parts, power_of_two


def keep_before(
    state: Stacked, pos: Tensor, kept: Stacked, before: Tensor, live: Tensor | None
) -> None:
    conv, h, keys, values = state
    rows, layers, rings = before.shape[0], conv.shape[0], keys.shape[0]
    sizes = conv[0, 0].numel(), h[0, 0].numel(), keys[0, 0, 0].numel() if rings else 1
    tile = power_of_two(max(sizes), 1024)
    launch(
        _keep,
        (rows, layers + rings, parts(max(sizes), tile)),
        *(conv, h, keys, values, pos, *kept, live),
        moved=2 * sum(t.nbytes for t in kept) + before.nbytes,
        slots=conv.shape[1],
        layers=layers,
        conv_size=sizes[0],
        h_size=sizes[1],
        ring_size=sizes[2],
        ring_slots=keys.shape[2],
        tile=tile,
    )
    tile = power_of_two(rows, 256)
    grid = (parts(rows, tile),)
    launch(_count, grid, pos, before, live, rows, moved=3 * before.nbytes, num_warps=1, tile=tile)


@triton.jit
def _keep(
    conv,
    h,
    keys,
    values,
    pos,
    kept_conv,
    kept_h,
    kept_keys,
    kept_values,
    live,
    slots: tl.constexpr,
    layers: tl.constexpr,
    conv_size: tl.constexpr,
    h_size: tl.constexpr,
    ring_size: tl.constexpr,
    ring_slots: tl.constexpr,
    tile: tl.constexpr,
):
    row, layer = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    rows = tl.num_programs(0)
    runs = row >= 0
    if live is not None:
        runs = row < tl.load(live)
    if runs:
        inner = tl.program_id(2) * tile + tl.arange(0, tile)
        if layer < layers:
            source = layer * slots + row
            target = layer * rows + row
            of_conv, of_h = inner < conv_size, inner < h_size
            inputs = tl.load(conv + source * conv_size + inner, mask=of_conv)
            tl.store(kept_conv + target * conv_size + inner, inputs, mask=of_conv)
            states = tl.load(h + source * h_size + inner, mask=of_h)
            tl.store(kept_h + target * h_size + inner, states, mask=of_h)
        else:
            ring = layer - layers
            at = tl.load(pos + row) % ring_slots
            slot = ((ring * slots + row) * ring_slots + at) * ring_size + inner
            place = (ring * rows + row) * ring_size + inner
            of_ring = inner < ring_size
            tl.store(kept_keys + place, tl.load(keys + slot, mask=of_ring), mask=of_ring)
            tl.store(kept_values + place, tl.load(values + slot, mask=of_ring), mask=of_ring)


@triton.jit
def _count(pos, before, live, rows, tile: tl.constexpr):
    row = tl.program_id(0) * tile + tl.arange(0, tile)
    if live is not None:
        rows = tl.minimum(rows, tl.load(live))
    read = tl.load(pos + row, mask=row < rows)
    tl.store(before + row, read, mask=row < rows)
    tl.store(pos + row, read + 1, mask=row < rows)
