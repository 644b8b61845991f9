"""One copy after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.live import write_live


def keep_before(
    rings: tuple[Tensor, Tensor],
    pos: Tensor,
    kept: tuple[Tensor, Tensor],
    before: Tensor,
    live: Tensor | None,
) -> None:
    rows = len(before)
    each = torch.arange(rows, device=pos.device)
    for full, part in zip(rings, kept, strict=True):
        for one, other in zip(full, part, strict=True):
            write_live(one[each, pos[:rows] % one.shape[1]], live, other)
    write_live(pos[:rows], live, before)
    write_live(pos[:rows] + 1, live, pos[:rows])
