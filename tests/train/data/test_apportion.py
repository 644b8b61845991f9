"""Places dealt by weight: the rule one by one, the quota at every place, and each way to ask."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from griffin.train.data.apportion import Shares

WEIGHTS = [
    (1.0,),
    (0.7, 0.3),
    (0.5, 0.5),
    (1, 0, 2),
    (0.6, 0.25, 0.1, 0.05),
    (1e-3, 1.0, 0.1),
    (3, 3, 3, 1, 1),
    tuple(np.random.default_rng(0).random(12).tolist()),
]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_it_is_websters_rule(weights: tuple[float, ...]) -> None:
    shares, had = Shares(weights), [0] * len(weights)
    exact = [Fraction(repr(weight)) for weight in weights]
    for place in range(700):
        assert shares.before(place) == had
        owner = max(
            (source for source in range(len(weights)) if weights[source]),
            key=lambda source: (exact[source] / (2 * had[source] + 1), -source),
        )
        assert shares.at(place) == (owner, had[owner])
        assert shares.place(owner, had[owner]) == place
        had[owner] += 1


@pytest.mark.parametrize("weights", WEIGHTS)
def test_each_has_its_share_at_every_place(weights: tuple[float, ...]) -> None:
    shares, total = Shares(weights), sum(weights)
    for place in (1, 7, 100, 12345, 10**9 + 7, 10**15 + 1):
        counts = shares.before(place)
        assert sum(counts) == place
        for count, weight in zip(counts, weights, strict=True):
            assert abs(count - place * weight / total) < 1.5 + len(weights) / 4
        owner, number = shares.at(place)
        assert shares.place(owner, number) == place
