"""Who is connected, and who has to go when there are more than may be."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

GUESTS = 32  # connections beyond the most, each until it is known who asks


class Guest(Protocol):
    """A connection. idle: no request of it is under way."""

    @property
    def idle(self) -> bool: ...

    def leave(self) -> None:
        """Close it."""


class Crowd:
    """At most so many connections, and for a moment a few guests beside them.

    A guest whose first request brings a key finds a place: that of the idle connection without a
    key that has been idle longest, else that of the idle one of the holder with most connections.
    A guest without a key has to go. So nobody without a key shuts out who has one, and no key
    another.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._holders: dict[Guest, str] = {}  # "" without a key; those that asked last come last
        self._guests: dict[Guest, None] = {}

    def __len__(self) -> int:
        return len(self._holders) + len(self._guests)

    def come(self, one: Guest) -> None:
        """Take a connection in; if there are too many guests, the first of them goes."""
        if len(self._holders) < self.most:
            self._holders[one] = ""
            return
        self._guests[one] = None
        if len(self._guests) > GUESTS:
            first = next(iter(self._guests))
            del self._guests[first]
            first.leave()

    def go(self, one: Guest) -> None:
        """Note that a connection is closed."""
        self._holders.pop(one, None)
        self._guests.pop(one, None)

    def knows(self, one: Guest, holder: str) -> bool:
        """Note who asks on a connection, "" for nobody known; return whether it may stay."""
        if one in self._guests:
            if len(self._holders) >= self.most and not (holder and self._make_room(holder)):
                return False
            del self._guests[one]
        # A key that was shown once is known from then on.
        self._holders[one] = holder or self._holders.pop(one, "")
        return True

    def _make_room(self, holder: str) -> bool:
        count = Counter(self._holders.values())
        idle = [one for one in self._holders if one.idle]
        unknown = [one for one in idle if not self._holders[one]]
        most = max((count[self._holders[one]] for one in idle), default=0)
        # Of its own there may be as many as of the others.
        theirs = [one for one in idle if count[self._holders[one]] == most >= count[holder]]
        if not (found := unknown or theirs):
            return False
        self.go(found[0])
        found[0].leave()
        return True
