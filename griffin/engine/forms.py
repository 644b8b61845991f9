"""What constraints allow next, as bits for a device, looked up before anybody waits for it."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torch import Tensor

from griffin.engine.row import Row
from griffin.sampling.table import as_bits


class Forms:
    """The next masks of rows that have a constraint.

    A mask is made as soon as the row's last token is known, while a step of the others runs. What
    a constraint raises there is kept, too: it ends the row when the next token is asked for.
    """

    def __init__(self) -> None:
        self._found: WeakKeyDictionary[Row, Tensor | Exception | None] = WeakKeyDictionary()

    def look(self, row: Row) -> None:
        """Make a row's next mask."""
        assert row.sampler is not None
        try:
            mask = row.sampler.allowed()
            self._found[row] = None if mask is None else as_bits(mask)
        except Exception as error:
            self._found[row] = error

    def take(self, row: Row) -> Tensor | Exception | None:
        """Return a row's next mask as `as_bits` makes it, None where all is allowed, or what the
        constraint raised."""
        if row not in self._found:
            self.look(row)
        return self._found.pop(row)
