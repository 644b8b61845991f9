"""Tasks whose answers can be checked, made by program, in an alphabet of single characters."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from griffin.tune.reward import tasks as rewards

BOS, END = 0, 1
LETTERS = "abcdefghij"
ALPHABET = "\0\n=+" + "0123456789" + LETTERS


class Item(NamedTuple):
    """A prompt and the answer that is right. Prompts of a task are equally long."""

    prompt: str
    answer: str


def _add(chance: random.Random) -> Item:
    one, other = (chance.randrange(10, 100) for _ in range(2))
    return Item(f"{one}+{other}=", str(one + other))


def _sort(chance: random.Random) -> Item:
    word = chance.choices(LETTERS, k=4)
    return Item("".join(word) + "=", "".join(sorted(word)))


@dataclass(frozen=True)
class Task:
    """What is asked, and the reward of an answer, from 0 to 1.

    longest: the most tokens of an answer, its end included.
    """

    name: str
    make: Callable[[random.Random], Item]
    reward: Callable[[str, str, dict[str, object]], float]
    longest: int

    @property
    def kind(self) -> str:
        """What is asked, whatever the reward."""
        return self.name.split(",")[0]

    def items(self, seed: str, count: int) -> list[Item]:
        """Draw items; other seeds draw others."""
        chance = random.Random(f"{self.make.__name__} {seed}")
        return [self.make(chance) for _ in range(count)]

    def score(self, items: Sequence[Item], answers: Sequence[str]) -> list[float]:
        """Return the reward of an answer to each item."""
        return [
            self.reward(item.prompt, answer, {"answer": item.answer})
            for item, answer in zip(items, answers, strict=True)
        ]


TASKS = {
    task.name: task
    for task in (
        Task("sort, similarity", _sort, rewards.similarity, 6),
        Task("sort, exact", _sort, rewards.exact, 6),
        Task("add, digits", _add, rewards.digits, 5),
    )
}


def encode(text: str) -> list[int]:
    """Return the id of each character."""
    return [ALPHABET.index(character) for character in text]


def decode(ids: Sequence[int]) -> str:
    """Return the text up to its end; ids that stand for no character are a question mark."""
    ids = ids[: ids.index(END)] if END in ids else ids
    return "".join(ALPHABET[i] if BOS < i < len(ALPHABET) else "?" for i in ids)
