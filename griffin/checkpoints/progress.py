"""How far work on a checkpoint is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a reading or a conversion is: bytes done, bytes in all, the tensor at hand."""

    done: int
    total: int
    name: str
