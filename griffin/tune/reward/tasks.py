"""Rewards of answers that can be checked: named in a recipe without a file.

Each compares an answer with the column `answer` of the prompt's row. A worker process runs this
file by itself, so nothing of the package is imported.
"""

import re
from typing import Any


def digits(prompt: str, answer: str, row: dict[str, Any]) -> float:
    """Return the share of right digits, 0 to 1: of the last whole number in the answer.

    Digits are compared from the units on; the share is of the longer of the two numbers.
    """
    expected, given = _expected(row), re.findall(r"[0-9]+", answer)
    wanted = re.findall(r"[0-9]+", expected)
    if not wanted:
        raise ValueError(f"the row's answer has no number: {expected!r}")
    if not given:
        return 0.0
    one, other = given[-1], wanted[-1]
    same = sum(a == b for a, b in zip(reversed(one), reversed(other), strict=False))
    return same / max(len(one), len(other))


def similarity(prompt: str, answer: str, row: dict[str, Any]) -> float:
    """Return 1 - edits / length, 0 to 1: the fewest characters to insert, delete or replace, over
    the longer text's length. Space around either does not count.
    """
    one, other = answer.strip(), _expected(row)
    return 1 - _edits(one, other) / max(len(one), len(other), 1)


def exact(prompt: str, answer: str, row: dict[str, Any]) -> float:
    """Return 1 if the answer is the row's, but for space around either, else 0."""
    return float(answer.strip() == _expected(row))


def _expected(row: dict[str, Any]) -> str:
    if row.get("answer") is None:
        raise ValueError("the prompt's row has no column `answer` to compare with")
    return str(row["answer"]).strip()


def _edits(one: str, other: str) -> int:
    """Return Levenshtein's distance, row by row of his table."""
    before = list(range(len(other) + 1))
    for number, a in enumerate(one, 1):
        now = [number]
        for at, b in enumerate(other):
            now.append(min(before[at] + (a != b), before[at + 1] + 1, now[at] + 1))
        before = now
    return before[-1]
