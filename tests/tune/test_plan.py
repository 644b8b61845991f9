"""What tuning is said to take, against what it takes, and what is offered where it does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from griffin.cli import main
from griffin.train.recipe import Recipe
from griffin.tune.plan import check_tuning_memory, plan_tuning

Build = Callable[..., Any]


@pytest.mark.parametrize("kind", ["", "bfloat16", "int8", "int4"])
def test_bytes_are_those_of_the_run(run: Build, recipe: Callable[..., Recipe], kind: str) -> None:
    tune = {"method": "lora", "rank": 4, "base": kind}
    plan, ours = plan_tuning(recipe(tune=tune)), run(tune=tune)
    ours.step()
    trained = [each for each in ours.model.parameters() if each.requires_grad]
    assert plan.trained == sum(each.numel() for each in trained)
    assert plan.weight_bytes == sum(each.nbytes for each in trained)
    assert plan.gradient_bytes == sum(each.grad.nbytes for each in trained)
    moments = ours.optimizer.state.values()
    assert plan.moment_bytes == sum(m["exp_avg"].nbytes + m["exp_avg_sq"].nbytes for m in moments)
    frozen = [each for each in ours.model.parameters() if not each.requires_grad]
    there = sum(each.nbytes for each in (*frozen, *ours.model.buffers()))
    assert plan.frozen_bytes == pytest.approx(there, rel=0.02)


def test_what_does_not_fit_is_refused_with_what_would(recipe: Callable[..., Recipe]) -> None:
    planned = recipe(tune={"method": "full"}, rows=64, length=2048)
    need = plan_tuning(planned).total_bytes
    with pytest.raises(ValueError, match=r"What would fit: .*checkpoint = 'blocks', train.rows"):
        check_tuning_memory(planned, need // 2 + (200 << 20))
    check_tuning_memory(planned, need)
    with pytest.raises(ValueError, match="No other setting would fit"):
        check_tuning_memory(planned, 1 << 20)


def test_the_verb_says_memory_and_hours_before_weights_are_read(chats: Path) -> None:
    words = ["finetune", "nano", "--data", str(chats), "--plan", "--product-rate", "1e9"]
    done = CliRunner().invoke(main, [*words, "--set", "train.steps=10"])
    assert done.exit_code == 0, done.output
    assert "an adapter of rank 16" in done.output and "which stays as it is" in done.output
    assert "hours for the budget" in done.output
