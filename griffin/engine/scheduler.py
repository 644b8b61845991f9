"""Who comes next, who has room, and how long the others may be kept waiting."""

from __future__ import annotations

import bisect
import heapq
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from types import MappingProxyType

from griffin.engine.row import Row

_NONE: Mapping[str, int] = MappingProxyType({})


class Line:
    """Rows that wait for a slot.

    Higher priority first; of one priority the namespace that has fewest slots, of those with as
    many the one that has waited longest since it got one; of one namespace first come, then lower
    choice.
    """

    def __init__(self) -> None:
        self._rows: dict[str, list[Row]] = {}  # by namespace, each in its order
        self._since: dict[str, int] = {}  # the moment from which a namespace waits
        self._moment = 0

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def __contains__(self, row: Row) -> bool:
        return row in self._rows.get(row.ticket.namespace, ())

    @property
    def namespaces(self) -> Set[str]:
        return self._rows.keys()

    def add(self, row: Row) -> None:
        namespace = row.ticket.namespace
        if namespace not in self._rows:
            self._wait(namespace)
        bisect.insort(self._rows.setdefault(namespace, []), row, key=_order)

    def remove(self, row: Row) -> None:
        namespace = row.ticket.namespace
        self._rows[namespace].remove(row)
        if not self._rows[namespace]:
            del self._rows[namespace], self._since[namespace]

    def order(self, held: Mapping[str, int]) -> Iterator[Row]:
        """Iterate over the rows, next ones first. held: how many slots each namespace has."""

        def place(row: Row) -> tuple[int, ...]:
            namespace = row.ticket.namespace
            own = _order(row)
            return own[0], held.get(namespace, 0), self._since[namespace], *own[1:]

        if len(self._rows) == 1:
            return iter(*self._rows.values())
        return heapq.merge(*self._rows.values(), key=place)

    def next(self, fits: Callable[[Row], bool], held: Mapping[str, int] = _NONE) -> Row | None:
        """Take out the first row that fits, None if none does."""
        row = next(filter(fits, self.order(held)), None)
        if row is not None:
            self.remove(row)
            if row.ticket.namespace in self._rows:
                self._wait(row.ticket.namespace)
        return row

    def _wait(self, namespace: str) -> None:
        self._moment += 1
        self._since[namespace] = self._moment


def _order(row: Row) -> tuple[int, int, int]:
    return -row.ticket.priority, row.ticket.number, row.choice


class Room:
    """Places for states outside the slots, taken before a state is allocated. Thread safe.

    A row that forks takes one before it begins. Of several that its namespace wants, it leaves two
    free for each that it has: for who comes next, and for the row that makes room for them.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        return self._held.total()

    def reserve(self, namespace: str, places: int = 1) -> bool:
        """Take so many places, or none; return whether they were free."""
        with self._lock:
            if self.used + places > self.places:
                return False
            if places:
                self._held[namespace] += places
            return True

    def free(self, namespace: str, places: int = 1) -> None:
        """Give so many places back."""
        with self._lock:
            assert places <= self._held[namespace], "more places were freed than were taken"
            self._held[namespace] -= places
            if not self._held[namespace]:
                del self._held[namespace]

    def admits(self, row: Row, others: int = 0) -> bool:
        """Return whether a row may take a slot once so many places were taken for others."""
        if not row.forks or row.kept is not None:
            return self.used + others <= self.places
        own = self._held[row.ticket.namespace] + 1
        left = self.places - self.used - others - 1
        return left >= (2 * own if own > 1 else 0)

    def fits(self, row: Row) -> bool:
        """Return whether a row may take a slot; one that forks gets a place for who finds none."""
        if row.forks and self.admits(row):
            row.reserved = row.kept is not None or self.reserve(row.ticket.namespace)
        return row.reserved or not row.forks

    def drop(self, row: Row, keep_place: bool = False) -> None:
        """Let go of a row's state outside the slots; the last to use it gives its place back."""
        if row.kept is not None:
            row.kept.users -= 1
            if row.kept.users == 0 and not keep_place:
                self.free(row.ticket.namespace)
            row.kept = None

    def unreserve(self, row: Row) -> None:
        """Give back the place that a row holds for others, if it does."""
        if row.reserved:
            row.reserved = False
            self.free(row.ticket.namespace)

    def reset(self) -> None:
        """Give every place back."""
        with self._lock:
            self._held.clear()


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


def next_reader(
    rows: Sequence[Row], turn: int, owed: Callable[[str], float] = lambda namespace: 0.0
) -> Row:
    """Return whose prompt is read on.

    Highest priority; the namespace that owes least to others; in turns its oldest prompt and its
    shortest. So a short prompt need not wait for a long one, nor the long one forever.
    """
    highest = max(row.ticket.priority for row in rows)
    rows = [row for row in rows if row.ticket.priority == highest]
    least = min(owed(row.ticket.namespace) for row in rows)
    rows = [row for row in rows if owed(row.ticket.namespace) == least]
    oldest = min(rows, key=lambda row: row.ticket.number)
    return oldest if turn % 2 else min(rows, key=lambda row: (row.left, row.ticket.number))


def check_knobs(**knobs: float) -> None:
    """Raise ValueError for a number that is too low: `chunk` and `slots` from 1, others from 0."""
    for name, value in knobs.items():
        least = 1 if name in ("slots", "chunk", "max_prompt_tokens") else 0
        if math.isnan(value) or value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")


def check_borders(chunk: int, every: int) -> None:
    """Raise ValueError unless pieces of a prompt end where a prefix cache keeps it."""
    if chunk % every and every % chunk:
        raise ValueError(
            f"chunk={chunk} and the cache's every={every} do not fit: make one a multiple of the"
            " other, so that the pieces of a prompt end where the cache keeps it"
        )


def check_bytes(slots: int, kept: int, row_bytes: int, most: int | None) -> None:
    """Raise ValueError for more slots and kept states than so many bytes have room for."""
    needed = (slots + kept) * row_bytes
    if most is not None and needed > most:
        raise ValueError(
            f"{slots} slots and {kept} kept states take {needed:,} bytes; allowed are {most:,},"
            f" enough for {most // row_bytes} of them together"
        )
