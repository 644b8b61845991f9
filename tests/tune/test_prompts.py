"""The order in which prompts are answered: by the seed alone, each once an epoch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from griffin.train.data.store import TokenStore
from griffin.tune.prompts import Prompts, check_column


def store(*lengths: int, first: int = 0) -> tuple[TokenStore, list[dict[str, object]]]:
    """Return prompts of some lengths, each a number over and over, with their rows."""
    ids = np.repeat(np.arange(len(lengths)) + first, lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    names = [f"p{n + first}" for n in range(len(lengths))]
    rows: list[dict[str, object]] = [{"prompt": name, "n": n} for n, name in enumerate(names)]
    return TokenStore(ids, starts, [0] * len(names), names), rows


def test_every_prompt_comes_once_an_epoch_in_an_order_of_its_own():
    stores = [store(3, 1, 4), store(2, 9, 5, first=3)]
    prompts = Prompts(stores, seed=1, most=5)
    assert len(prompts) == 5 and prompts.left_out == 1
    epochs = [[prompts.at(5 * epoch + n).text for n in range(5)] for epoch in range(4)]
    assert all(sorted(each) == ["p0", "p1", "p2", "p3", "p5"] for each in epochs)
    assert len({tuple(each) for each in epochs}) > 1
    # Whatever was asked for before.
    again = Prompts(stores, seed=1, most=5)
    assert [again.at(n).text for n in (17, 3, 11)] == [
        epochs[3][2],
        epochs[0][3],
        epochs[2][1],
    ]
    other = Prompts(stores, seed=2, most=5)
    assert [other.at(n).text for n in range(20)] != [text for each in epochs for text in each]


def test_a_prompt_has_its_ids_and_its_row():
    prompts = Prompts([store(3, 1), store(2, first=2)], seed=0, most=9)
    assert [prompts.listed(n).ids for n in range(3)] == [(0, 0, 0), (1,), (2, 2)]
    assert [dict(prompts.listed(n).row) for n in (1, 2)] == [
        {"prompt": "p1", "n": 1},
        {"prompt": "p2", "n": 0},
    ]


def test_messages_are_what_they_say():
    encoded, _ = store(2)
    messages = [{"role": "user", "content": "Hello"}]
    [question] = [Prompts([(encoded, [{"prompt": messages}])], 0, 9).listed(0)]
    assert question.text == "Hello" and question.row["prompt"] == messages


def test_none_that_is_short_enough():
    with pytest.raises(ValueError, match="there is no prompt of at most 2 tokens"):
        Prompts([store(3, 4)], seed=0, most=2)


def test_a_reward_of_the_package_needs_its_column() -> None:
    rows = [{"answer": "1"}, {"answer": None}, {}]
    source: Any = SimpleNamespace(name="a", train_rows=rows)
    check_column("exact", [source], 0.7)
    check_column("x.py:f", [source], 0.0)
    with pytest.raises(ValueError, match=r"'exact' compares .*; 2 of the 3 .* of a have none: add"):
        check_column("exact", [source], 0.1)
