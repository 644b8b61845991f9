"""What tuning is said to take, against what it takes, and what is offered where it does not fit."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from griffin.cli import main
from griffin.engine import Engine
from griffin.engine.slots import Slots
from griffin.train.recipe import ONLINE, Recipe
from griffin.train.report import Reporter
from griffin.tune import sample
from griffin.tune.budget import count_budget
from griffin.tune.plan import check_tuning_memory, plan_tuning

Build = Callable[..., Any]
REWARD = {"reward": "similarity", "reward_failures": 1.0, "prompts": 4, "answer_tokens": 6}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {"prompt": f"{n} + 1?", "chosen": f" {n + 1}." * (1 + n % 3), "rejected": " No."}
        for n in range(30)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [{"prompt": f"{n} + {n}?", "answer": str(2 * n)} for n in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


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
    assert plan.twin_bytes == plan.drawn_bytes == 0


@pytest.mark.parametrize("parameters", ["lora", "full"])
@pytest.mark.parametrize("method", ["dpo", "rloo", "jbond", "whole"])
def test_bytes_of_what_stands_beside_are_those_of_the_run(
    run: Build,
    recipe: Callable[..., Recipe],
    pairs: Path,
    prompts: Path,
    parameters: str,
    method: str,
) -> None:
    """All tensors that a run holds between two steps, and no others, are in the plan."""
    tune: dict[str, Any] = {"method": method, "parameters": parameters, "rank": 4, "answers": 2}
    if method == "whole":
        tune |= {"method": "grpo", "whole": ["rg_lru"]}
    tune |= {} if method == "dpo" else REWARD
    data = pairs if method == "dpo" else prompts
    planned = recipe(tune=tune, data=data)
    before = large_tensors()  # what other tests of this process left
    ours = run(tune=tune, data=data)
    ours.step()
    twins = [each for each in (getattr(ours, n, None) for n in ("start", "anchor")) if each]
    models = [ours.model, *(twin.model for twin in twins)]
    weights = {t.data_ptr(): t for m in models for t in (*m.parameters(), *m.buffers())}
    moments = [t for m in ours.optimizer.state.values() for t in m.values() if t.dim()]
    gradients = [t.grad for t in ours.model.parameters() if t.grad is not None]
    there = sum(each.nbytes for each in (*weights.values(), *moments, *gradients))
    plan = plan_tuning(planned)
    own = sum(t.nbytes for t in ours.model.parameters() if t.requires_grad)
    assert plan.twin_bytes == len(twins) * own
    said = plan.frozen_bytes + plan.state_bytes + plan.twin_bytes
    assert said == pytest.approx(there, rel=0.005)
    # Whatever else is a tensor by now is small: what a reference or an engine had is gone.
    known = {t.untyped_storage().data_ptr() for t in (*weights.values(), *moments, *gradients)}
    largest = max(t.nbytes for t in weights.values())
    assert not [
        (tuple(t.shape), t.dtype)
        for key, t in large_tensors(largest).items()
        if key not in before and t.untyped_storage().data_ptr() not in known
    ]


def large_tensors(least: int = 0) -> dict[int, torch.Tensor]:
    """Return the tensors of at least so many bytes that exist and have memory, by their id."""
    gc.collect()
    return {
        id(t): t
        for t in gc.get_objects()
        if type(t) in (torch.Tensor, torch.nn.Parameter)
        and t.device.type != "meta"
        and t.nbytes >= least
    }


@pytest.mark.parametrize("method", ["jbond", "grpo"])
def test_bytes_of_answers_are_those_of_the_engine(
    run: Build,
    recipe: Callable[..., Recipe],
    prompts: Path,
    method: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = list[int]()

    class Watched(Engine):
        def __init__(self, model: Any, slots: int, **how: Any) -> None:
            super().__init__(model, slots, **how)
            found.append(Slots.bytes(model.config, model.dtype, slots + -(-slots // 4)))
            assert sum(t.nbytes for t in self._core.batch.slots._tensors) < found[-1]

    monkeypatch.setattr(sample, "Engine", Watched)
    tune = {"method": method, "rank": 4, "answers": 3, **REWARD}
    plan, ours = plan_tuning(recipe(tune=tune, data=prompts)), run(tune=tune, data=prompts)
    ours.step()
    assert max(found) < plan.drawn_bytes < max(found) + (40 << 20)
    # J-BOND's answers, and GRPO's.
    assert len(found) == (2 if method == "jbond" else 1)
    assert plan.tokens_per_step == 4 * 3 * 6


def test_a_pair_is_read_as_two_rows(
    recipe: Callable[..., Recipe], pairs: Path, chats: Path
) -> None:
    shape = {"rows": 4, "length": 64}
    both = plan_tuning(recipe(tune={"method": "dpo"}, data=pairs, **shape))
    one = plan_tuning(recipe(tune={"method": "lora"}, data=chats, **shape))
    assert both.activation_bytes == pytest.approx(2 * one.activation_bytes, rel=1e-3)
    two = plan_tuning(recipe(tune={"method": "jbond", **REWARD}, rows=1, length=64))
    assert two.activation_bytes == pytest.approx(one.activation_bytes / 2, rel=1e-3)


@pytest.mark.parametrize("method", ["lora", "state", "dpo", "rloo", "jbond"])
def test_epochs_are_the_steps_of_the_run(
    run: Build,
    recipe: Callable[..., Recipe],
    chats: Path,
    pairs: Path,
    prompts: Path,
    method: str,
) -> None:
    rewarded = method in ONLINE
    tune = {"method": method, "rank": 4, "keys": 2} | (REWARD if rewarded else {})
    data = pairs if method == "dpo" else prompts if rewarded else chats
    given: dict[str, Any] = {"tune": tune, "data": data, "epochs": 2.5, "steps": 0, "rows": 3}
    budget = count_budget(recipe(**given), Reporter(quiet=True))
    ours = run(**given)
    assert budget.steps == ours.plan.total_steps > 1
    plan = plan_tuning(recipe(**given), budget=budget)
    assert (plan.steps, plan.tokens_per_step) == budget
    if method == "dpo":
        some = [ours.pairs.listed(n).tokens for n in range(len(ours.pairs))]
        assert budget.tokens_per_step == pytest.approx(3 * sum(some) / len(some), abs=1)
    elif rewarded:
        some = [len(ours.prompts.listed(n).ids) for n in range(len(ours.prompts))]
        answers = 4 * (3 if method == "jbond" else 8) * 6
        assert budget.tokens_per_step == pytest.approx(answers + 4 * sum(some) / len(some), abs=1)
    else:
        assert budget.tokens_per_step == 3 * 48


def test_what_does_not_fit_is_refused_with_what_would(recipe: Callable[..., Recipe]) -> None:
    planned = recipe(tune={"method": "full"}, rows=64, length=2048)
    need = plan_tuning(planned).total_bytes
    with pytest.raises(ValueError, match=r"What would fit: .*checkpoint = 'blocks', train.rows"):
        check_tuning_memory(planned, need // 2 + (200 << 20))
    check_tuning_memory(planned, need)
    with pytest.raises(ValueError, match="No other setting would fit"):
        check_tuning_memory(planned, 1 << 20)
    twins = recipe(tune={"method": "jbond", "parameters": "full", **REWARD})
    with pytest.raises(ValueError, match=r"of the model as it was and its anchor, .* of answers"):
        check_tuning_memory(twins, 1 << 20)


def test_the_verb_says_memory_and_hours_before_weights_are_read(chats: Path) -> None:
    words = ["finetune", "nano", "--data", str(chats), "--plan", "--product-rate", "1e9"]
    done = CliRunner().invoke(main, [*words, "--set", "train.steps=10"])
    assert done.exit_code == 0, done.output
    assert "an adapter of rank 16" in done.output and "which stays as it is" in done.output
    assert re.search(r"operations/s, [\d.]+ minutes for the budget;", done.output)
    hours = CliRunner().invoke(main, [*words, "--set", "train.steps=10000"])
    assert re.search(r"operations/s, [\d.]+ hours for the budget;", hours.output)


def test_the_verb_counts_epochs(chats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its default budget: the data is read for it, the weights are not, and nothing is left."""
    monkeypatch.setattr(
        "griffin.checkpoints.models.load_model", lambda *_, **__: pytest.fail("read")
    )
    words = ["finetune", "nano", "--data", str(chats), "--plan", "--product-rate", "1e9"]
    with CliRunner().isolated_filesystem():
        done = CliRunner().invoke(main, [*words, "--json"])
        assert not list(Path().iterdir())
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["steps"] == 3 and facts["tokens_per_step"] == 1024
    wanted = 3 * 1024 / facts["limit_tokens_per_second"]
    assert facts["least_seconds"] == pytest.approx(wanted)
