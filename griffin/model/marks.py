"""The states after some tokens of a call, not after its last alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from griffin.model.state import AttentionState, RecurrentState


class Marks:
    """Ask a call on one row that runs on for what its state was on the way; blocks fill it in.

    at:        after how many of the call's tokens, ascending, 1 up to all of them.
    recurrent: of each recurrent layer its state after each mark: as many rows as there are marks.
    written:   of each attention layer the keys and values (1, T, K, H) of the call's tokens.
    """

    def __init__(self, at: Sequence[int]) -> None:
        self.at = tuple(at)
        self.recurrent: list[RecurrentState] = []
        self.written: list[AttentionState] = []

    def check(self, tokens: Tensor, segment_pos: Tensor | None) -> None:
        """Raise ValueError unless they are marks of a call on tokens (B, T), one row that goes
        on."""
        rows, steps = tokens.shape
        if segment_pos is not None or torch.is_grad_enabled():
            raise ValueError("marks are for a row that goes on, read without gradients")
        rising = all(a < b for a, b in zip((0, *self.at), (*self.at, steps + 1), strict=True))
        if rows != 1 or not rising:
            raise ValueError(
                f"marks are of one row, each after 1 to {steps} tokens and in order; here are"
                f" {rows} rows and {self.at}"
            )

    def inputs(self, u: Tensor, before: Tensor | None, taps: int) -> Tensor:
        """Return the convolution's last inputs at each mark, (marks, W-1, E), oldest first.

        u: (1, T, E), its inputs; before: (1, W-1, E), those before the call, zeros if None.
        """
        if before is None:
            before = u.new_zeros(1, taps - 1, u.shape[2])
        whole = torch.cat([before[0], u[0].to(before.dtype)])
        return torch.stack([whole[at : at + taps - 1] for at in self.at])
