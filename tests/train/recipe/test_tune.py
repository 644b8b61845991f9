"""The section [tune]: what it refuses, and that it is a part of the recipe."""

from __future__ import annotations

from typing import Any

import pytest

from griffin.train.recipe import Recipe, TuneRecipe

_TRAIN = {"steps": 2}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"method": "sft"}, "tune.method must be one of"),
        ({"method": "lora", "rank": 0}, "tune.rank must be at least 1, not 0"),
        ({"method": "lora", "alpha": float("nan")}, "tune.alpha must be a finite number"),
        ({"method": "lora", "dropout": 1.0}, r"tune.dropout must lie in \[0, 1\), not 1.0"),
        ({"method": "full", "base": "int8"}, "tune.base = 'int8' is for weights that stay"),
        ({"method": "dpo", "parameters": "full", "base": "int4"}, "all weights are trained here"),
        ({"method": "jbond"}, "needs tune.reward"),
        ({"method": "grpo", "reward": "x", "answers": 1}, "tune.answers must be at least 2"),
        ({"method": "jbond", "reward": "x", "mix": 1.5}, "tune.mix must lie between 0 and 1"),
        ({"method": "dpo", "beta": 0.0}, "tune.beta must be positive"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TuneRecipe(**values)


def test_a_recipe_has_it_and_is_another_with_it() -> None:
    plain = {"from": "nano", "train": _TRAIN}
    tuned = plain | {"tune": {"method": "lora", "rank": 4}}
    one, other = Recipe.from_dict(plain), Recipe.from_dict(tuned)
    assert one.tune is None and "tune" not in one.to_dict()
    assert other.tune == TuneRecipe(method="lora", rank=4)
    assert Recipe.from_dict(other.to_dict()) == other
    assert one.digest() != other.digest()
    more = Recipe.from_dict(plain | {"tune": {"method": "lora", "rank": 8}})
    assert more.digest() != other.digest()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"from": "nano", "train": _TRAIN, "tune": {"rank": 4}}, "lacks its method"),
        ({"from": "nano", "train": _TRAIN, "tune": {"method": "lora", "ranks": 4}}, "ranks"),
        ({"model": {"preset": "nano"}, "train": _TRAIN, "tune": {"method": "lora"}}, "needs from"),
    ],
)
def test_a_recipe_with_a_wrong_one_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Recipe.from_dict(values)
