"""Who is next: shares dealt out one at a time, so that at any moment each has had its share.

The rule is Webster's (Sainte-Lague's) for seats in a parliament: the next one goes to whoever has
the largest weight / (2 n + 1), n being what it has had. A share of w has had w x places to within
one or so at every place, whatever the other shares are, and no place needs those before it: how
many have been dealt to each before a place is found at once, in whole numbers.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from fractions import Fraction


class Shares:
    """Deal places 0, 1, 2, ... to sources by weight. weights: at least one is positive."""

    def __init__(self, weights: Sequence[float]) -> None:
        # A weight is the decimal number that was written, not its binary neighbour.
        exact = [Fraction(repr(weight)) for weight in weights]
        scale = math.lcm(*(each.denominator for each in exact))
        self._parts = [int(each * scale) for each in exact]
        common = math.lcm(*(part for part in self._parts if part))
        # Number n of a source comes when (2 n + 1) x its stride does; of two at once the first.
        self._strides = [common // part if part else 0 for part in self._parts]

    def before(self, place: int) -> list[int]:
        """Return how many places before one each source has had."""
        return self._deal(place)[0]

    def at(self, place: int) -> tuple[int, int]:
        """Return whose a place is, and how many its owner has had before."""
        counts, owner = self._deal(place)
        return owner, counts[owner]

    def place(self, source: int, number: int) -> int:
        """Return the place at which a source gets its place number `number`, counted from 0."""
        time, found = (2 * number + 1) * self._strides[source], number
        for other, stride in enumerate(self._strides):
            if stride and other != source:
                found += ((time if other < source else time - 1) // stride + 1) // 2
        return found

    def _deal(self, place: int) -> tuple[list[int], int]:
        """Return the counts before a place, and who is next."""
        whole, many = sum(self._parts), len(self._parts)
        # All that have come by a time somewhat earlier; then the few that are left, one by one.
        early = max(0, place - many)
        counts = [(2 * part * early + whole) // (2 * whole) for part in self._parts]
        coming = [
            ((2 * count + 1) * stride, source)
            for source, (count, stride) in enumerate(zip(counts, self._strides, strict=True))
            if stride
        ]
        heapq.heapify(coming)
        for _ in range(place - sum(counts)):
            time, source = coming[0]
            counts[source] += 1
            heapq.heapreplace(coming, (time + 2 * self._strides[source], source))
        return counts, coming[0][1]
