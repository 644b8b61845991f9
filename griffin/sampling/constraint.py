"""What a constraint on an answer is; griffin.grammar makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

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


@runtime_checkable
class Forcing(Protocol):
    """A Constraint that knows where it leaves no choice."""

    def forced(self) -> Sequence[int]:
        """Return ids that come next, one after the other, whatever the model says; perhaps none.

        A hint: it changes nothing, and each of them is still chosen by `allowed`.
        """
        ...
