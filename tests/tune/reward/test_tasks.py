"""Rewards that come with the package, by hand and by their names."""

from __future__ import annotations

import random

import pytest

from griffin.tune.reward import Reward, Rewards
from griffin.tune.reward.file import BUNDLED
from griffin.tune.reward.tasks import digits, exact, similarity


@pytest.mark.parametrize(
    ("answer", "expected", "share"),
    [
        ("123", "123", 1.0),
        ("it is 123.", 123, 1.0),
        ("5, no: 123", "= 123", 1.0),
        ("124", "123", 2 / 3),
        ("23", "123", 2 / 3),
        ("0123", "123", 3 / 4),
        ("312", "123", 0.0),
        ("1" * 10, "1", 0.1),
        ("none", "123", 0.0),
        ("", "123", 0.0),
        ("١٢٣", "123", 0.0),
    ],
)
def test_digits(answer, expected, share):
    assert digits("", answer, {"answer": expected}) == share


@pytest.mark.parametrize(
    ("answer", "expected", "value"),
    [
        ("kitten", "sitting", 1 - 3 / 7),
        (" abc\n", "abc", 1.0),
        ("abc", "", 0.0),
        ("", "abc", 0.0),
        ("", "", 1.0),
        ("abc", "acb", 1 / 3),
        ("abcd", "bcd", 3 / 4),
    ],
)
def test_similarity(answer, expected, value):
    assert similarity("", answer, {"answer": expected}) == pytest.approx(value, abs=1e-15)


def test_similarity_counts_the_fewest_edits():
    """Beside the definition: a text after one edit fewer, then one more, by trying them all."""
    rng = random.Random(0)
    for _ in range(30):
        one, other = ("".join(rng.choices("ab", k=rng.randrange(5))) for _ in range(2))
        reached, steps = {one}, 0
        while other not in reached:
            reached = {text for each in reached for text in _edited(each)}
            steps += 1
        expected = 1 - steps / max(len(one), len(other), 1)
        assert similarity("", one, {"answer": other}) == pytest.approx(expected, abs=1e-15)


def _edited(text: str) -> set[str]:
    found = {text}
    for at in range(len(text) + 1):
        found |= {text[:at] + c + text[at:] for c in "ab"}
        found |= {text[:at] + c + text[at + 1 :] for c in ("a", "b", "")}
    return found


def test_exact():
    assert exact("", " 12\n", {"answer": 12}) == 1.0
    assert exact("", "12.", {"answer": "12"}) == 0.0


@pytest.mark.parametrize("name", BUNDLED)
def test_by_name(name):
    with Rewards(name) as rewards:
        right, missing = rewards.score([("p", "12", {"answer": 12}), ("p", "12", {})])
    assert right == Reward(1.0)
    assert missing.reason == "raised" and "no column `answer`" in missing.detail
