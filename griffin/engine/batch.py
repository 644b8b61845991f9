"""Which row sits in which slot: running ones in front, so that a step gathers nothing."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

from griffin.engine.row import Row
from griffin.engine.slots import Slots
from griffin.model import State


class Batch:
    """The rows in the slots: running ones in 0 ... n-1, those that read prompts behind them.

    running, reading: rows in the order of their slots; to be changed through the methods only.
    """

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.running: list[Row] = []
        self.reading: list[Row] = []

    @property
    def busy(self) -> int:
        return len(self.running) + len(self.reading)

    @property
    def free(self) -> int:
        return self.slots.count - self.busy

    @property
    def rows(self) -> list[Row]:
        """All of them, in the order of their slots."""
        return [*self.running, *self.reading]

    @property
    def held(self) -> Counter[str]:
        """How many slots each namespace has."""
        return Counter(row.ticket.namespace for row in self.rows)

    def others_run(self, namespace: str) -> bool:
        """Return whether rows of other namespaces run."""
        return any(row.ticket.namespace != namespace for row in self.running)

    def slot(self, row: Row) -> int:
        """Return the slot a row sits in."""
        if row.phase == "running":
            return self.running.index(row)
        return len(self.running) + self.reading.index(row)

    def enter(self, row: Row, state: State | None) -> None:
        """Give a row a free slot with a copy of `state`, to read (the rest of) its prompt in."""
        assert self.free, "a row enters only where a slot is free"
        if state is not None:
            try:
                self.slots.put(self.busy, state)
            except BaseException:
                self.slots.clear(self.busy)  # it is still free, and free slots hold zeros
                raise
        self.reading.append(row)
        row.phase = "reading"

    def start(self, row: Row) -> None:
        """Let a row that has read its prompt run with the others."""
        first = len(self.running)
        place = self.reading.index(row)
        self.slots.swap(first, first + place)
        self.reading[place], self.reading[0] = self.reading[0], row
        self.running.append(self.reading.pop(0))
        row.phase = "running"

    def fork(self, row: Row, new: Row) -> None:
        """Let `new` run from a copy of a row's slot."""
        assert self.free, "a row enters only where a slot is free"
        self.slots.copy(self.slot(row), self.busy)
        self.reading.append(new)
        self.start(new)

    def exchange(self, one: int, other: int) -> None:
        """Let two running rows change their slots."""
        self.slots.swap(one, other)
        rows = self.running
        rows[one], rows[other] = rows[other], rows[one]

    def replace(self, row: Row, new: Row) -> None:
        """Let `new` have the slot of a row that reads."""
        self.reading[self.reading.index(row)] = new
        new.phase = "reading"

    def take(self, row: Row) -> State:
        """Return a copy of a row's state."""
        return self.slots.take(self.slot(row))

    def leave(self, row: Row) -> None:
        """Take a row out, move the last ones up, and clear the slot that becomes free."""
        if row.phase == "running":
            place, last = self.running.index(row), len(self.running) - 1
            self._move(last, place)
            self.running[place] = self.running[last]
            self.running.pop()
            if self.reading:  # the hole is in front of them: the last one fills it
                self._move(last + len(self.reading), last)
                self.reading.insert(0, self.reading.pop())
        else:
            place, last = self.reading.index(row), len(self.reading) - 1
            first = len(self.running)
            self._move(first + last, first + place)
            self.reading[place] = self.reading[last]
            self.reading.pop()
        self.slots.clear(self.busy)

    def empty(self) -> list[Row]:
        """Take all rows out at once and return them; a step broke, and states mean nothing."""
        rows = self.rows
        self.running, self.reading = [], []
        with suppress(RuntimeError):  # a device that broke clears nothing any more
            self.slots.clear(0, self.slots.count)
        return rows

    def _move(self, source: int, target: int) -> None:
        if source != target:
            self.slots.copy(source, target)
