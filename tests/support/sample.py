"""Which cases of a sweep `make test-fast` runs: a twelfth of them, drawn by a seed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable

SHARE = 12  # one of so many cases, and one at least of each sweep


def sampled(ids: Iterable[str], seed: int) -> set[str]:
    """Return the ids of the tests that a seed draws; those of a sweep differ in their brackets."""
    sweeps = defaultdict(list)
    for id in ids:
        sweeps[id.partition("[")[0]].append(id)
    drawn: set[str] = set()
    for name, cases in sweeps.items():
        chance = random.Random(f"{seed} {name}")
        drawn.update(chance.sample(cases, max(1, len(cases) // SHARE)))
    return drawn
