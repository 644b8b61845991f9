"""One figure of a sitting, beside its limit and what was asked for; or why there is none."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


class Waits(Exception):
    """Why a row cannot be measured yet, or not here; its text is for the report."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What was read off a machine.

    what:   of which thing, in words.
    value:  in `unit`: "tokens/s", "B/s", "op/s", "s", "x" (times), "share" or "" (a count).
    limit:  the most, or least, that the machine allows, in the same unit; None where there is none.
    wanted: what it should come to, in the same unit; None where nothing is asked.
    less:   smaller is better: `wanted` is the most that is allowed.
    detail: more about it, as JSON has it.
    """

    what: str
    value: float
    unit: str
    limit: float | None = None
    wanted: float | None = None
    less: bool = False
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def share(self) -> float | None:
        """Return how near the limit it is, 1 at the limit; None without one."""
        if not self.limit or not self.value:
            return None
        return self.limit / self.value if self.less else self.value / self.limit

    @property
    def reached(self) -> bool | None:
        """Return whether it is what was asked for; None where nothing was."""
        if self.wanted is None:
            return None
        return self.value <= self.wanted if self.less else self.value >= self.wanted

    def to_dict(self) -> dict[str, Any]:
        """Return its fields, its share of the limit, and whether it is what was asked for."""
        return dataclasses.asdict(self) | {"share": self.share, "reached": self.reached}
