"""Budgets, stages and the learning rate over them."""

from __future__ import annotations

from typing import Any

import pytest

from griffin.train.optim import learning_rate
from griffin.train.recipe import Recipe, TrainRecipe

MODEL = {"model": {"preset": "nano"}}
SOURCES = [{"name": "web", "path": "w", "weight": 0.7}, {"name": "code", "path": "c"}]


def _plan(*stages: dict[str, Any], **train: Any) -> TrainRecipe:
    values = {"train": train | {"stage": list(stages)}, "data": {"source": SOURCES}}
    return Recipe.from_dict(MODEL | values).train


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"steps": 3, "epochs": 1}}, "exactly one budget.* not steps=3 and epochs=1"),
        ({"train": {"steps": 3, "stage": [{"steps": 1}]}}, "not steps=3 and stages"),
        ({"train": {"num_epochs": 3}}, r"here it is train\.epochs"),
        ({"train": {"epochs": -1}}, r"train\.epochs must not be negative"),
        ({"train": {"stage": 3}}, r"must be tables, \[\[train\.stage\]\], not 3"),
        ({"train": {"stage": [{"name": "a"}]}}, "train.stage 'a' needs exactly one budget"),
        ({"train": {"stage": [{"steps": 1, "tokens": 1}]}}, "needs exactly one budget"),
        ({"train": {"stage": [{"steps": 1, "lr": 1}]}}, r"here it is train\.stage\.learning_rate"),
        ({"train": {"stage": [{"steps": 1, "learning_rate": "x"}]}}, "must be a number, not 'x'"),
        ({"train": {"stage": [{"steps": 1, "schedule": "step"}]}}, "'constant', 'wsd', not 'step'"),
        ({"train": {"stage": [{"steps": 1, "schedule": "wsd"}]}}, "train.stage: .*decay_steps"),
        ({"train": {"stage": [{"steps": 1, "learning_rate": -1}]}}, "must be positive, not -1"),
        ({"train": {"stage": [{"steps": 1, "weights": {"wbe": 1}}]}}, "did you mean 'web'"),
        (
            {"train": {"stage": [{"steps": 1, "weights": {"web": True}}]}},
            "web must be a number of at",
        ),
        (
            {"train": {"stage": [{"steps": 1, "weights": {"web": -1}}]}},
            "web must be a number of at",
        ),
        ({"train": {"stage": [{"steps": 1, "weights": {"web": 0}}]}}, "are all 0"),
        ({"train": {"stage": [{"steps": 1, "weights": 3}]}}, "weights must be a table such as"),
        (
            {"data": {"source": [{"name": "a", "path": "a", "weight": 0}]}, "train": {"steps": 1}},
            "the weights are all 0",
        ),
        (
            {"data": {"source": [{"name": "a", "path": "a", "seed": -1}]}, "train": {"steps": 1}},
            "seed must be at least 0",
        ),
        (
            {"data": {"packing": "best-fit"}, "train": {"steps": 1, "carry": True}},
            r"takes data\.packing = 'cut', not 'best-fit'",
        ),
    ],
)
def test_impossible_stages_and_budgets_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict(MODEL | {"data": {"source": SOURCES}} | values)


def test_stages_share_the_budget() -> None:
    plan = _plan({"tokens": 1000}, {"steps": 7, "name": "b"}, rows=2, length=50)
    assert plan.total_steps == 17
    assert [plan.stage_of(step) for step in (0, 9, 10, 16, 99)] == [0, 0, 1, 1, 1]
    assert plan.stage_entry(3) == {"stage": "1"} and plan.stage_entry(10) == {"stage": "b"}
    values = {
        "data": {"source": SOURCES},
        "train": {"stage": [{"steps": 2, "weights": {"web": 1}}]},
    }
    ours = Recipe.from_dict(MODEL | values)
    assert Recipe.from_dict(ours.to_dict()) == ours


def test_a_budget_in_epochs_becomes_one_in_steps() -> None:
    plan = TrainRecipe(epochs=1.5, rows=4, accumulation=2)
    assert plan.in_steps(25).total_steps == 3
    assert plan.in_steps(1).total_steps == 1
    with pytest.raises(ValueError, match="once the rows are counted"):
        _ = plan.total_steps


def test_stages_without_a_rate_are_one_course() -> None:
    common: Any = {"learning_rate": 1.0, "warmup_steps": 3}
    one = TrainRecipe(steps=20, **common)
    two = _plan({"steps": 8, "weights": {"web": 1}}, {"steps": 12}, **common)
    assert [learning_rate(s, one) for s in range(20)] == [learning_rate(s, two) for s in range(20)]


def test_a_stage_with_a_rate_begins_a_course() -> None:
    """Over itself and those behind it that name none, without warm-up unless it asks for one."""
    common: Any = {"learning_rate": 1.0, "warmup_steps": 3, "final_ratio": 0.2}
    plan = _plan(
        {"steps": 8},
        {"steps": 5, "learning_rate": 0.1, "schedule": "linear"},
        {"steps": 4},
        {"steps": 6, "schedule": "wsd", "decay_steps": 2, "warmup_steps": 2},
        **common,
    )
    first = TrainRecipe(steps=8, **common)
    second = TrainRecipe(
        steps=9, learning_rate=0.1, schedule="linear", warmup_steps=0, final_ratio=0.2
    )
    third = TrainRecipe(steps=6, **common | {"warmup_steps": 2}, schedule="wsd", decay_steps=2)
    expected = [
        learning_rate(step, course)
        for course in (first, second, third)
        for step in range(course.steps)
    ]
    assert [learning_rate(step, plan) for step in range(23)] == expected
    assert len(set(expected)) > 15
