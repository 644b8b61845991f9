"""A step that never ends: noticed by whoever looks now and then."""

from __future__ import annotations

FACTOR = 10  # a step may take so many times as long as the longest before it
_STRIDE = 1.0  # seconds that a look counts for, at most


class Pulse:
    """What an engine shows of its turns.

    count: changes with every call of the model that ends. at_work: a turn is under way.
    longest: seconds of the longest call so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self.at_work = False
        self.longest = 0.0

    def beat(self, seconds: float = 0.0) -> None:
        """Note that a turn began, or that a call ended which took so long."""
        self.at_work = True
        self.count += 1
        self.longest = max(self.longest, seconds)


class Watchdog:
    """Tell an engine that hangs from one that is slow.

    least: seconds that any step may take. It may take ten times as long as the longest so far, if
           that is more. expected: seconds that the longest may be taken to be before it was seen.
    Time is what passes between looks, a second at most for each: a machine that slept, or a clock
    that jumped, looks like one look.
    """

    def __init__(self, pulse: Pulse, least: float, expected: float = 0.0) -> None:
        self._pulse = pulse
        self._least = least
        self._expected = expected
        self._count = -1
        self._last: float | None = None
        self._stuck = 0.0

    @property
    def limit(self) -> float:
        """Seconds after which a step counts as hung."""
        return max(self._least, FACTOR * max(self._expected, self._pulse.longest))

    def look(self, now: float) -> bool:
        """Return whether a step hangs. now: by any clock that counts seconds."""
        passed = 0.0 if self._last is None else min(max(0.0, now - self._last), _STRIDE)
        count, self._last = self._pulse.count, now
        if count != self._count or not self._pulse.at_work:
            self._count, self._stuck = count, 0.0
        else:
            self._stuck += passed
        return self._stuck > self.limit
