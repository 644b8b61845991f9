"""Padding, wherever it stands: a row's tokens moved together, and their results put back."""

from __future__ import annotations

import torch
from torch import Tensor


class Padding:
    """A batch whose rows are of different lengths.

    mask: (B, T) bool, True where a token is one of its row's. Pads may stand before, behind and
          between them.

    The model has no padding mask: pads stand on the left, at negative positions, where they change
    nothing. So each row's tokens are moved to the right, in their order, and the columns that hold
    none are left out. A row's results are those it has alone, and its state is that after its own
    last token.
    """

    def __init__(self, mask: Tensor) -> None:
        counts = mask.long().cumsum(1)  # tokens of the row up to each place
        total = counts[:, -1:]
        width = max(1, int(total.max()))
        # A stable sort: pads come first, tokens stay in their order.
        self._order = mask.long().argsort(dim=1, stable=True)[:, -width:]
        self._real = mask.gather(1, self._order)
        self._step = self._real.long().cumsum(1) - 1
        # Where each place finds its result behind a column for "nothing yet": a pad has that of the
        # token before it.
        self._back = torch.where(counts > 0, width - total + counts, 0)

    def tokens(self, tokens: Tensor) -> Tensor:
        """Return (B, T) tokens moved together: (B, longest row)."""
        return tokens.gather(1, self._order)

    def positions(self, begin: Tensor | None, given: Tensor | None) -> Tensor | None:
        """Return the moved tokens' segment_pos, None where no pad is left and nothing was given.

        begin: (B,) tokens read before; none if omitted.
        given: (B, T) positions as asked for; they run on if omitted.
        """
        if given is None:
            if self._real.all():
                return None
            moved = self._step if begin is None else self._step + begin[:, None]
        else:
            moved = given.gather(1, self._order)
        return torch.where(self._real, moved, -1)

    def spread(self, hidden: Tensor, before: Tensor | None) -> Tensor:
        """Return the moved tokens' results at their places, (B, T, D).

        A pad behind a token has that token's; one before its row's first has `before` (B, D), or
        zeros.
        """
        first = hidden.new_zeros(hidden.shape[0], hidden.shape[2]) if before is None else before
        known = torch.cat([first[:, None].to(hidden.dtype), hidden], 1)
        return known.gather(1, self._back[:, :, None].expand(-1, -1, hidden.shape[2]))


def padding_of(mask: Tensor | None, tokens: Tensor, read: int) -> Padding | None:
    """Return the padding that an attention_mask tells of, None where these tokens have none.

    mask: (B, T), or (B, read + T) as `generate` has it, zeros at pads.
    read: columns before these tokens.
    Raises ValueError for a mask of another shape.
    """
    if mask is None:
        return None
    rows, steps = tokens.shape
    if mask.dim() != 2 or mask.shape[0] != rows or mask.shape[1] not in (steps, read + steps):
        raise ValueError(
            f"attention_mask is {tuple(mask.shape)}; for tokens {(rows, steps)} after {read} it has"
            f" to be {(rows, steps)} or {(rows, read + steps)}, 0 at pads and 1 elsewhere"
        )
    here = mask[:, -steps:].to(tokens.device) != 0
    return None if here.all() else Padding(here)
