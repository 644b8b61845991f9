"""Who comes next, who has room, and how long the others may be kept waiting."""

from __future__ import annotations

import bisect
import math
import threading
from collections.abc import Callable, Sequence

from griffin.engine.row import Row


class Line:
    """Rows that wait for a slot: higher priority first, then first come, then lower choice."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, row: Row) -> bool:
        return row in self._rows

    def add(self, row: Row) -> None:
        bisect.insort(self._rows, row, key=_order)

    def remove(self, row: Row) -> None:
        self._rows.remove(row)

    def next(self, fits: Callable[[Row], bool]) -> Row | None:
        """Take out the first row that fits, None if none does."""
        for place, row in enumerate(self._rows):
            if fits(row):
                return self._rows.pop(place)
        return None


def _order(row: Row) -> tuple[int, int, int]:
    return -row.ticket.priority, row.ticket.number, row.choice


class Room:
    """Places for states outside the slots, taken before a state is allocated. Thread safe."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        return self._used

    def reserve(self, places: int = 1) -> bool:
        """Take so many places, or none; return whether they were free."""
        with self._lock:
            if self._used + places > self.places:
                return False
            self._used += places
            return True

    def free(self, places: int = 1) -> None:
        """Give so many places back."""
        with self._lock:
            assert places <= self._used, "more places were freed than were taken"
            self._used -= places

    def reset(self) -> None:
        """Give every place back."""
        with self._lock:
            self._used = 0


class Pace:
    """How many pieces of prompts fit between two steps of the rows that run.

    stall_seconds: what a running row may wait for its next token. A piece is read if the last ones
                   of its kind and the step that follows would still fit; one always is, so prompts
                   never starve.
    """

    def __init__(self, stall_seconds: float) -> None:
        self.stall_seconds = stall_seconds
        self._piece = 0.0
        self._step = 0.0

    def stepped(self, seconds: float) -> None:
        """Note how long a step took. A slow one counts at once, a fast one by and by."""
        self._step = max(seconds, (self._step + seconds) / 2)

    def read(self, seconds: float) -> None:
        """Note how long a piece took."""
        self._piece = max(seconds, (self._piece + seconds) / 2)

    def fits(self, since: float) -> bool:
        """Return whether another piece fits, `since` seconds after the end of the last step."""
        return since + self._piece + self._step <= self.stall_seconds


def next_reader(rows: Sequence[Row], turn: int) -> Row:
    """Return whose prompt is read on: highest priority; in turns the oldest and the shortest.

    So a short prompt need not wait for a long one, nor the long one forever.
    """
    highest = max(row.ticket.priority for row in rows)
    rows = [row for row in rows if row.ticket.priority == highest]
    oldest = min(rows, key=lambda row: row.ticket.number)
    return oldest if turn % 2 else min(rows, key=lambda row: (row.left, row.ticket.number))


def check_knobs(**knobs: float) -> None:
    """Raise ValueError for a number that is too low: `chunk` and `slots` from 1, others from 0."""
    for name, value in knobs.items():
        least = 1 if name in ("slots", "chunk", "max_prompt_tokens") else 0
        if math.isnan(value) or value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
