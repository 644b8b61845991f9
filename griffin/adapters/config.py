"""What a LoRA adapter is: its rank, its scale, and the layers that it changes."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Every linear layer of a block.
TARGETS = (
    *("linear_x", "linear_y", "linear_out"),
    *("q_proj", "k_proj", "v_proj", "o_proj"),
    *("gate_proj", "up_proj", "down_proj"),
)
# What may be trained whole beside the linear layers: the RG-LRU's gates and Lambda.
WHOLE = ("rg_lru",)


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Say which layers an adapter changes, and how. LoRA, arXiv:2106.09685.

    A layer's y = x W^T becomes y + scale * (x A^T) B^T, with A (rank, I) and B (O, rank).

    rank     columns of what is added.
    alpha    scale is alpha / rank.
    rslora   scale is alpha / sqrt(rank) instead, so that it does not shrink as the rank grows
             (arXiv:2312.03732).
    dropout  the share of the layer's inputs that training leaves out before A.
    targets  names of linear layers, in every block that has them (`TARGETS`).
    whole    modules that are trained as they are and kept whole in the adapter (`WHOLE`).
    Raises ValueError for values that cannot be.
    """

    rank: int = 16
    alpha: float = 32.0
    rslora: bool = False
    dropout: float = 0.0
    targets: tuple[str, ...] = TARGETS
    whole: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"a LoRA's rank must be at least 1, not {self.rank}")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"a LoRA's alpha must be a positive number, not {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"a LoRA's dropout must lie in [0, 1), not {self.dropout}")
        if not self.targets and not self.whole:
            raise ValueError("a LoRA must have targets; all of them are " + ", ".join(TARGETS))
        for given, known, what in (
            (self.targets, TARGETS, "targets"),
            (self.whole, WHOLE, "whole modules"),
        ):
            if unknown := [name for name in given if name not in known]:
                raise ValueError(
                    f"a LoRA's {what} must be among {', '.join(known)}, not {', '.join(unknown)}"
                )
            if len(set(given)) < len(given):
                raise ValueError(f"a LoRA's {what} name one twice: {', '.join(given)}")

    @property
    def scale(self) -> float:
        """What the product of both matrices is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)
