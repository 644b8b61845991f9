"""What an answer of the model in the box is worth: right or not, and how nearly.

A process of its own runs this file while a model learns from rewards, so it imports nothing of the
package.
"""

import re
from typing import Any


def right(given: str, expected: str) -> bool:
    """Return whether an answer says what was expected, in whatever words.

    A number is the last one of the answer; yes and no are its first word; anything else stands in
    it as a word or phrase.
    """
    if re.fullmatch(r"-?[0-9]+", expected):
        numbers = re.findall(r"(?:(?<!\S)-)?[0-9]+", given)
        return bool(numbers) and numbers[-1] == expected
    if expected in ("Yes", "No"):
        return re.split(r"\W", given.strip(), maxsplit=1)[0] == expected
    return re.search(rf"(?<!\w){re.escape(expected)}(?!\w)", given) is not None


def reward(prompt: str, answer: str, row: dict[str, Any]) -> float:
    """Return 1 for a right answer, else up to a half: for the characters that are right from the
    end of the answer on, whatever stop is behind it.
    """
    expected, given = str(row["answer"]), answer.strip().rstrip(".")
    if right(answer, expected):
        return 1.0
    tail = given[-len(expected) :].rjust(len(expected))
    return 0.5 * sum(a == b for a, b in zip(tail, expected, strict=True)) / len(expected)
