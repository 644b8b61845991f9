"""The program that tries cases sees every way in which one can go wrong."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.bad_cases import make
from tools.fuzz import harness

KIND = "tests.support.bad_cases"
# Of few cases one of each way, at least.
SEED, CASES = 11, 8


@pytest.mark.thorough
def test_every_way_of_going_wrong_is_found() -> None:
    expected = Counter(make(harness.chance(KIND, SEED, number)) for number in range(CASES))
    assert len(expected) == 7, "the seed draws every way"
    # A busy machine stands still for seconds: with less patience other cases look endless too.
    tally = harness.hunt(KIND, SEED, CASES, seconds=0.5, patience=15)
    assert tally.cases == CASES
    assert tally.outcomes["ValueError"] == expected["refused"]
    ended = expected["for ever"] + expected["ends the process"]
    assert tally.outcomes["ended the process"] == ended
    for text, way in (
        ("KeyError at bad_cases.py", "another error"),
        ("took 0.7 s", "slow"),
        ("was not over", "for ever"),
        ("MB above the imports", "too large"),
        ("SIGABRT", "ends the process"),
    ):
        assert sum(text in line for line in tally.findings) >= expected[way], text


def test_a_case_is_the_same_again() -> None:
    draws = [harness.chance("a kind", 3, number).random() for number in range(5)]
    assert len(set(draws)) == 5
    assert draws[3] == harness.chance("a kind", 3, 3).random()


def test_lines_are_accounted_for() -> None:
    """Of `python -m tools.fuzz lines` a few, in this process: a line is trained on, left out by a
    reason, or told as bad, and what is counted is what it says."""
    from tools.fuzz import lines

    cases = [lines.make(harness.chance("lines", 7, number)) for number in range(60)]
    for case in cases:
        lines.attempt(case)
    assert len({case.content for case in cases}) > 50
