"""What a step will overwrite of the rings, kept so that each row can go back by that one token."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.dispatch import implementation
from griffin.ops.live import check_live


def keep_before(
    rings: tuple[Tensor, Tensor],
    pos: Tensor,
    kept: tuple[Tensor, Tensor],
    before: Tensor,
    live: Tensor | None = None,
) -> None:
    """Copy the slots that the next token of each row will overwrite, and count the token.

    rings:  (A, N, S, K, H) keys and values of A layers and N slots. pos: (N,) int64, tokens read,
            one more afterwards.
    kept:   (A, R, K, H) of R rows, the first of the slots: what lies at pos mod S; changed.
    before: (R,) int64: pos as it was; changed.
    live:   (1,) int32: rows from there on are left as they are, here and there.
    Two launches; one without rings. The recurrent states are kept by those who overwrite them
    (`recurrent_step`). Raises ValueError for shapes that do not match.
    """
    rows = before.shape[0]
    check_live(live)
    for name, full, part in zip(("keys", "values"), rings, kept, strict=True):
        shape = (full.shape[0], rows, *full.shape[3:])
        if part.shape != shape or part.dtype != full.dtype or full.shape[1] < rows:
            raise ValueError(
                f"of {name} {tuple(full.shape)} {full.dtype} {shape} is kept, not"
                f" {tuple(part.shape)} {part.dtype}"
            )
    if pos.dtype != torch.int64 or before.dtype != torch.int64 or len(pos) < rows:
        raise ValueError(f"pos must be ({rows} or more,) int64, not {tuple(pos.shape)} {pos.dtype}")
    run = implementation("keep_before", *rings, *kept, pos, before, live)
    run(rings, pos, kept, before, live)
