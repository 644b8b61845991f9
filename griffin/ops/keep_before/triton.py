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
    tiles = parts(max(sizes), tile)
    moved = 2 * sum(t.nbytes for t in kept) + 3 * before.nbytes
    launch(
        _keep,
        (rows, layers + rings, tiles),
        *(conv, h, keys, values, pos, *kept, before, live),
        *(conv.shape[1], layers, *sizes, keys.shape[2] if rings else 1),
        moved=moved,
        TILE=tile,
        HAS_LIVE=live is not None,
    )
    launch(_count, (rows,), pos, before, live, moved=0, num_warps=1, HAS_LIVE=live is not None)


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
    before,
    live,
    slots,
    layers,
    conv_size,
    h_size,
    ring_size,
    ring_slots,
    TILE: tl.constexpr,
    HAS_LIVE: tl.constexpr,
):
    row, layer = tl.program_id(0), tl.program_id(1)
    rows = tl.num_programs(0)
    if HAS_LIVE:  # noqa: SIM102  # live is nothing otherwise
        if row >= tl.load(live):
            return
    inner = tl.program_id(2) * TILE + tl.arange(0, TILE)
    if layer < layers:
        source = layer.to(tl.int64) * slots + row
        target = layer.to(tl.int64) * rows + row
        of_conv, of_h = inner < conv_size, inner < h_size
        moved = tl.load(conv + source * conv_size + inner, mask=of_conv)
        tl.store(kept_conv + target * conv_size + inner, moved, mask=of_conv)
        wide = tl.load(h + source * h_size + inner, mask=of_h)
        tl.store(kept_h + target * h_size + inner, wide, mask=of_h)
    else:
        ring = (layer - layers).to(tl.int64)
        at = tl.load(pos + row) % ring_slots
        source = ((ring * slots + row) * ring_slots + at) * ring_size + inner
        target = (ring * rows + row) * ring_size + inner
        of_ring = inner < ring_size
        tl.store(kept_keys + target, tl.load(keys + source, mask=of_ring), mask=of_ring)
        tl.store(kept_values + target, tl.load(values + source, mask=of_ring), mask=of_ring)


@triton.jit
def _count(pos, before, live, HAS_LIVE: tl.constexpr):
    row = tl.program_id(0)
    if HAS_LIVE:  # noqa: SIM102  # live is nothing otherwise
        if row >= tl.load(live):
            return
    read = tl.load(pos + row)
    tl.store(before + row, read)
    tl.store(pos + row, read + 1)
