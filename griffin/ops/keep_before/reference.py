"""One copy after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.keep_before import Stacked
from griffin.ops.live import write_live


def keep_before(
    state: Stacked, pos: Tensor, kept: Stacked, before: Tensor, live: Tensor | None
) -> None:
    rows = len(before)
    for full, part in zip(state[:2], kept[:2], strict=True):
        for one, other in zip(full, part, strict=True):
            write_live(one[:rows], live, other)
    each = torch.arange(rows, device=pos.device)
    for full, part in zip(state[2:], kept[2:], strict=True):
        for one, other in zip(full, part, strict=True):
            write_live(one[each, pos[:rows] % one.shape[1]], live, other)
    write_live(pos[:rows], live, before)
    write_live(pos[:rows] + 1, live, pos[:rows])
