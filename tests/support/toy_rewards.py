"""Rewards that a test's own function gives, in its process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from griffin.tune.reward import Reward

Score = Callable[[str, str, Mapping[str, Any]], float | None]


class Called:
    """Rewards by a function of prompt, answer and row, called here; None is a failure."""

    def __init__(self, function: Score) -> None:
        self.function = function
        self.asked: list[tuple[str, str, Mapping[str, Any]]] = []
        self.closed = False

    def score(self, pairs: Iterable[tuple[str, str, Mapping[str, Any]]]) -> list[Reward]:
        asked = list(pairs)
        self.asked += asked
        values = [self.function(*each) for each in asked]
        return [
            Reward(None, "raised", "ZeroDivisionError: a toy") if value is None else Reward(value)
            for value in values
        ]

    def close(self) -> None:
        self.closed = True


def share_of_e(prompt: str, answer: str, row: Mapping[str, Any]) -> float:
    return answer.count("e") / max(1, len(answer))
