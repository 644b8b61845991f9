"""What each namespace may have of an engine that several share: slots, the queue, the time.

A namespace is whoever asks: a server's API key, say. Where there is only one, nothing here has any
effect.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from griffin.engine.row import Row
from griffin.engine.scheduler import Line

QUANTUM = 32  # turns that a row has a slot at least, where there are more namespaces than slots


class Queue:
    """Requests that wait for their first slot, counted by namespace. Thread safe.

    most: that may wait. When they do, a namespace that has fewer than its part of them (of two the
          half) may have one more wait all the same: so nobody shuts it out. Of k namespaces that
          all do their worst, most * (1 + 1/2 + ... + 1/k) wait.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._waiting: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._waiting.total()

    def enter(self, namespace: str, free: int) -> bool:
        """Let one more wait, `free` slots counted as places; return False if it may not."""
        with self._lock:
            if self._waiting.total() >= self.most + free:
                if self._waiting.keys() <= {namespace}:
                    return False
                share = self.most // len(self._waiting.keys() | {namespace})
                if self._waiting[namespace] >= max(1, share):
                    return False
            self._waiting[namespace] += 1
            return True

    def leave(self, namespace: str) -> None:
        """Note that a request got its slot, or ended without one."""
        with self._lock:
            self._waiting[namespace] -= 1
            assert self._waiting[namespace] >= 0, "more requests left the queue than came"
            if not self._waiting[namespace]:
                del self._waiting[namespace]


def exchanges(line: Line, rows: Sequence[Row], turn: int) -> Iterator[tuple[Row, Row]]:
    """Yield rows that wait, each with one that makes room for it; fairest first.

    rows: in slots, all of which are taken. turn: of the engine, now.
    """
    held = Counter(row.ticket.namespace for row in rows)
    if len(held) == 1 and held.keys() == line.namespaces:
        return
    tried: set[tuple[str, int]] = set()
    for row in line.order(held):
        kind = row.ticket.namespace, row.ticket.priority
        if kind not in tried and (aside := set_aside_for(row, rows, held, turn)) is not None:
            yield row, aside
        if not row.forks:  # one that forks may find no place where the next one needs none
            tried.add(kind)


def set_aside_for(
    waiting: Row, rows: Sequence[Row], held: Mapping[str, int], turn: int
) -> Row | None:
    """Return the row that makes room for one that waits; None if that has to wait on.

    held: how many slots each namespace has.
    It is the last to come of the namespace with most slots, if these are at least two more than
    those of the one that waits. A namespace without any takes turns with those that have one each:
    then it is the row that has had its slot longest, if that was at least QUANTUM turns. No row
    makes room for one of lower priority.
    """
    own = held.get(waiting.ticket.namespace, 0)
    rows = [row for row in rows if row.ticket.namespace != waiting.ticket.namespace]
    rows = [row for row in rows if row.ticket.priority <= waiting.ticket.priority]
    most = max((held[row.ticket.namespace] for row in rows), default=0)
    if most >= own + 2:
        theirs = [row for row in rows if held[row.ticket.namespace] == most]
        return max(theirs, key=lambda row: (row.ticket.number, row.choice))
    if not own and rows:
        longest = min(rows, key=lambda row: row.entered)
        return longest if turn - longest.entered >= QUANTUM else None
    return None


class Debts:
    """What prompts of each namespace owe, in seconds, to the answers of others.

    After a piece of a prompt was read, the running rows of others step for as long before the next
    piece of that namespace. So of an engine's time prompts take no more than their share.
    """

    def __init__(self) -> None:
        self._owed: dict[str, float] = {}

    def of(self, namespace: str) -> float:
        """Return what a namespace owes now."""
        return self._owed.get(namespace, 0.0)

    def read(self, namespace: str, seconds: float) -> None:
        """Note how long a piece of a prompt took."""
        self._owed[namespace] = self.of(namespace) + seconds

    def pay(self, seconds: float) -> None:
        """Take so much off every debt: the running rows stepped for so long."""
        self._owed = {name: owed - seconds for name, owed in self._owed.items() if owed > seconds}

    def level(self, namespaces: Iterable[str]) -> None:
        """Take off what all of these owe: nobody else waits for it, and they are equal."""
        self.pay(min(map(self.of, namespaces), default=0.0))
