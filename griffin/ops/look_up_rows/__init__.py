"""Rows of laid weights, as an embedding reads them, or all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.dispatch import implementation, on_one_device
from griffin.ops.few_rows.laid import Laid
from griffin.ops.live import check_live
from griffin.ops.positions import WHOLE


def look_up_rows(
    ids: Tensor | None, weights: Laid, scale: float, dtype: torch.dtype, live: Tensor | None = None
) -> Tensor:
    """Return rows `ids` of laid weights in `dtype`, times `scale`: an embedding, in one launch.

    ids:  (R,) whole numbers, each at least 0 and below O; others are taken as the nearest that is.
          None: every row, in order.
    live: as for `few_rows`.
    Returns (R, I); each weight is rounded to `dtype`, and its product again, as `look_up` does.
    """
    if ids is not None and (ids.dim() != 1 or ids.dtype not in WHOLE):
        raise ValueError(f"ids must be whole numbers (R,), not {tuple(ids.shape)} {ids.dtype}")
    check_live(live)
    on_one_device(weights.data, weights.scale, ids, live)
    rows = weights.out_features if ids is None else len(ids)
    out = weights.data.new_empty(rows, weights.in_features, dtype=dtype)
    if rows:
        implementation("look_up_rows", out)(ids, weights, scale, live, out)
    return out
