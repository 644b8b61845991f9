"""The rows, unpacked and scaled by torch."""

from __future__ import annotations

from torch import Tensor

from griffin.ops.few_rows.laid import Laid, unlay
from griffin.ops.live import write_live


def look_up_rows(
    ids: Tensor | None, weights: Laid, scale: float, live: Tensor | None, out: Tensor
) -> None:
    some, part = weights, weights.scale
    if ids is not None:
        ids = ids.long().clamp(0, weights.out_features - 1)
        if part is not None:
            part = part[ids] if weights.format == "int8" else part[:, ids]
        some = weights._replace(data=weights.data[ids], scale=part, bias=None)
    write_live(unlay(some, out.dtype) * scale, live, out)
