from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from griffin.model import Griffin, GriffinConfig
from griffin.train.optim import decays, learning_rate, make_optimizer
from griffin.train.recipe import TrainRecipe
from tests.train.conftest import MODEL


def test_only_matrices_and_taps_decay() -> None:
    model = Griffin(GriffinConfig.from_dict(MODEL))
    ends = {
        name.split(".", 3)[-1] if ".layers." in name else name
        for name, p in model.named_parameters()
        if decays(name, p)
    }
    assert ends == {
        *(
            f"temporal_block.{part}.weight"
            for part in ("linear_x", "linear_y", "linear_out", "conv_1d")
        ),
        *(f"temporal_block.{part}_proj.weight" for part in "qkvo"),
        *(f"mlp_block.{part}_proj.weight" for part in ("gate", "up", "down")),
    }


def test_a_head_of_its_own_decays() -> None:
    model = Griffin(GriffinConfig.from_dict(MODEL | {"tie_embeddings": False}))
    parameters = dict(model.named_parameters())
    assert decays("lm_head.weight", parameters["lm_head.weight"])
    assert not decays("model.embed_tokens.weight", parameters["model.embed_tokens.weight"])


def test_decay_reaches_the_weights_it_should_and_no_other() -> None:
    """With zero gradients AdamW moves nothing but by decay."""
    model = Griffin(GriffinConfig.from_dict(MODEL))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, TrainRecipe(steps=1, weight_decay=0.5, learning_rate=0.1))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if decays(name, parameter) else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


def test_course_of_the_learning_rate() -> None:
    plan = TrainRecipe(steps=110, warmup_steps=10, learning_rate=2.0, final_ratio=0.1)
    rates = [learning_rate(step, plan) for step in range(110)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[-1] == pytest.approx(0.2)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    middle = 2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 50 / 99)))
    assert rates[60] == pytest.approx(middle)
    assert learning_rate(
        0, TrainRecipe(steps=1, warmup_steps=0, learning_rate=2.0)
    ) == pytest.approx(2.0)


def test_courses_of_other_schedules() -> None:
    common: Any = {"steps": 20, "warmup_steps": 4, "learning_rate": 1.0, "final_ratio": 0.1}

    def rates(**schedule: Any) -> list[float]:
        plan = TrainRecipe(**common, **schedule)
        return [learning_rate(step, plan) for step in range(20)]

    assert rates(schedule="constant") == [0.25, 0.5, 0.75] + [1.0] * 17
    line = rates(schedule="linear")
    assert line[4] == 1.0 and line[19] == pytest.approx(0.1)
    assert line[9] == pytest.approx(1 - 0.9 * 5 / 15)
    stable = rates(schedule="wsd", decay_steps=5)
    assert stable[:15] == [0.25, 0.5, 0.75] + [1.0] * 12
    assert stable[15:] == pytest.approx([1 - 0.9 * step / 5 for step in range(1, 6)])


def test_a_decay_belongs_to_one_schedule() -> None:
    for wrong in ({"schedule": "wsd"}, {"decay_steps": 5}):
        with pytest.raises(ValueError, match=r"decay_steps belongs to train\.schedule = 'wsd'"):
            TrainRecipe(steps=9, **wrong)  # pyright: ignore[reportArgumentType]
