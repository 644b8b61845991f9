"""What a step will overwrite, kept so that each row can go back by that one token."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from griffin.ops.dispatch import implementation
from griffin.ops.live import check_live


class Stacked(NamedTuple):
    """The states of N rows, layers of a kind one behind the other, or what was kept of them.

    conv: (L, N, W-1, E), inputs of the convolutions. h: (L, N, E), float32 or wider.
    keys, values: (A, N, S, K, H), the rings; of what is kept (A, N, K, H), a slot of each.
    """

    conv: Tensor
    h: Tensor
    keys: Tensor
    values: Tensor


def keep_before(
    state: Stacked, pos: Tensor, kept: Stacked, before: Tensor, live: Tensor | None = None
) -> None:
    """Copy what the next token of each row will overwrite, and count the token.

    state:  of the slots. pos: (N,) int64, tokens read, one more afterwards.
    kept:   of R rows, the first of the slots: recurrent states, and the slot pos mod S of each
            ring; changed.
    before: (R,) int64: pos as it was; changed.
    live:   (1,) int32: rows from there on are left as they are, here and there.
    Two launches. Raises ValueError for shapes that do not match.
    """
    rows = before.shape[0]
    check_live(live)
    for name, full, part in zip(state._fields, state, kept, strict=True):
        shape = (full.shape[0], rows, *full.shape[3 if name in ("keys", "values") else 2 :])
        if part.shape != shape or part.dtype != full.dtype or full.shape[1] < rows:
            raise ValueError(
                f"of {name} {tuple(full.shape)} {full.dtype} {shape} is kept, not"
                f" {tuple(part.shape)} {part.dtype}"
            )
    if pos.dtype != torch.int64 or before.dtype != torch.int64 or len(pos) < rows:
        raise ValueError(f"pos must be ({rows} or more,) int64, not {tuple(pos.shape)} {pos.dtype}")
    run = implementation("keep_before", state.h, *state, *kept, pos, before, live)
    run(state, pos, kept, before, live)
