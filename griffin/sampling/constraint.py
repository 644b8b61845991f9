"""What a constraint on an answer is; griffin.grammar makes them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class ConstraintError(ValueError):
    """An answer that cannot go on as its constraint demands."""


class Constraint(Protocol):
    """What one answer may say, token by token.

    It remembers what was said, so each row has one of its own. Whatever it raises ends that row,
    and no other.
    """

    def allowed(self) -> Tensor | None:
        """Mark the ids that may come next, (V,) bool; None allows all."""
        ...

    def accept(self, id: int) -> bool:
        """Take the id that was chosen, one of those allowed; return whether it ends the answer."""
        ...
