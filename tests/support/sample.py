"""Which cases of a sweep `make test` and `make test-fast` run: a share, drawn by a seed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable


def sampled(ids: Iterable[str], seed: int, share: int) -> set[str]:
    """Return the ids of the tests that a seed draws; those of a sweep differ in their brackets.

    share: of so many cases of a sweep one is drawn, and of each sweep one at least.
    """
    sweeps = defaultdict(list)
    for id in ids:
        sweeps[id.partition("[")[0]].append(id)
    drawn: set[str] = set()
    for name, cases in sweeps.items():
        chance = random.Random(f"{seed} {name}")
        drawn.update(chance.sample(cases, max(1, len(cases) // share)))
    return drawn
