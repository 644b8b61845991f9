"""Logits through a small copy of the head, which says which of its rows are worth reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor

from griffin import ops

if TYPE_CHECKING:
    from griffin.model.griffin import Griffin


def unembed_best(model: Griffin, hidden: Tensor, bits: Literal[2, 3] = 2) -> Tensor:
    """Do as `Griffin.unembed`, through the model's screen if it has one.

    hidden: (..., D). bits: of the preview that are read: 2 say which logits are largest, 3 also
            what the others weigh together.
    Returns logits (..., V), soft-capped, in float32 or wider: the largest are exact, the others the
    preview's. A row has the same bits in any company.
    """
    head = model.head if model.screen is not None else None
    if model.screen is None or not isinstance(head, ops.Packed):
        return model.unembed(hidden)
    logits = model.screen(hidden, head, bits)
    cap = model.config.logits_soft_cap
    return ops.soft_cap(logits, cap) if cap else logits
