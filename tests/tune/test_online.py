"""Learning from rewards for the model's own answers: one loop for three methods."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch

from griffin.train.diverged import DivergedError
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.train.scale.ranks import Ranks
from griffin.train.stopping import Interrupted
from griffin.tune.heard import Heard
from griffin.tune.online import OnlineTrainer
from griffin.tune.reward import TooManyFailures
from griffin.tune.sample import AnswerRows, Drawn
from tests.support.toy_folder import write_toy
from tests.support.toy_rewards import Called, Score, share_of_e

torch.set_num_threads(1)

Build = Callable[..., OnlineTrainer]
METHODS = ["jbond", "grpo", "rloo"]
TRAIN = {"steps": 4, "rows": 5, "length": 40, "schedule": "constant", "weight_decay": 0.0}
TRAIN |= {"learning_rate": 1e-2, "warmup_steps": 1}
TRAIN |= {"log_every": 1, "eval_every": 99, "eval_tokens": 200}
TUNE = {"reward": "exact", "rank": 4, "prompts": 4, "answers": 3, "answer_tokens": 6}


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def prompt_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty prompts of several lengths, each with the column `place`."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [{"prompt": f"def f{n}(x" + ", y" * (n % 5), "place": n} for n in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def online(toy_model: Path, prompt_rows: Path, tmp_path: Path) -> Callable[..., OnlineTrainer]:
    """Build a run of a method in a folder of the given name.

    One that had the folder before leaves it, as the process that ended would.
    """
    before = dict[str, OnlineTrainer]()

    def build(
        method: str = "rloo",
        name: str = "run",
        score: Score = share_of_e,
        tune: Mapping[str, Any] = MappingProxyType({}),
        **train: Any,
    ) -> OnlineTrainer:
        if name in before:
            before[name].close()
        values = {
            "from": str(toy_model),
            "data": {
                "held_out": 0.2,
                "source": ({"name": "prompts", "path": str(prompt_rows)},),
            },
            "train": TRAIN | train,
            "tune": {"method": method, **TUNE, **tune},
        }
        recipe, out = Recipe.from_dict(values), tmp_path / name
        before[name] = OnlineTrainer(recipe, out, Reporter(quiet=True), rewards=Called(score))
        return before[name]

    return build


def _log(run: OnlineTrainer) -> list[dict[str, Any]]:
    lines = (run.out / "log.jsonl").read_text().splitlines()
    passing = ("seconds", "tokens_per_second", "peak_bytes")
    return [{k: v for k, v in json.loads(line).items() if k not in passing} for line in lines]


def _weights(run: OnlineTrainer) -> list[torch.Tensor]:
    found = [p.detach().clone() for p in run.model.parameters()]
    return found + [t.clone() for t in run._beside().values()]


def _rewards(run: OnlineTrainer) -> Called:
    assert isinstance(run._rewards, Called)
    return run._rewards


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("jbond", "lora"), ("jbond", "full"), ("grpo", "lora"), ("rloo", "full")],
)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    online: Build, method: str, parameters: str
) -> None:
    """Weights, anchor, answers and rewards; the log is that of the run that was not stopped."""
    tune = {"parameters": parameters, "mix": 0.3, "gamma": 0.5, "eta": 0.3, "kl": 0.1}
    how: dict[str, Any] = {"tune": tune, "steps": 3, "eval_every": 2}
    straight = online(method, "straight", **how)
    straight.run()

    stopped = online(method, "stopped", **how)
    stopped.step()
    stopped.save()
    stopped.step()  # lost

    resumed = online(method, "stopped", **how)
    assert resumed.progress.step == 1
    resumed.run()
    assert all(map(torch.equal, _weights(straight), _weights(resumed)))
    asked = _rewards(resumed).asked
    assert asked and asked == _rewards(straight).asked[-len(asked) :]
    assert _log(straight)[1:] == _log(resumed)[-2:]
    assert {entry["ties"] for entry in _log(straight)} != {0.0, 1.0}


def _by_hand(run: OnlineTrainer, heard: Heard) -> torch.Tensor:
    """Return the loss of a step, one answer after another, each read alone and unpadded."""

    def scores(answer: Drawn, adapter: int | None = None) -> torch.Tensor:
        ids = torch.tensor([(*answer.prompt, *answer.ids)])
        chosen = None if adapter is None else [adapter]
        hidden, _ = run.model.trunk(ids[:, :-1], adapters=chosen)
        places = torch.arange(len(answer.prompt) - 1, ids.shape[1] - 1)
        logprobs = run.model.unembed(hidden)[0, places].log_softmax(-1)
        return logprobs.gather(1, ids[0, places + 1][:, None])[:, 0]

    tune, total = run.tune, torch.zeros(())
    if tune.method == "jbond":
        returns, terms = list[float](), list[Any]()
        for row, own in enumerate(heard.own):
            mine, theirs = float(heard.rewards[row, 0]), heard.anchor_rewards[row].tolist()
            own_log = scores(own).sum()
            drift = float(own_log.detach()) - sum(heard.anchor[row])
            returns.append((-math.log(16) if mine < min(theirs) else 0.0) - drift)
            best = heard.anchors[row][1 if theirs[1] > theirs[0] else 0]
            terms.append((scores(best).sum(), own_log, drift))
        for row, (best, own_log, drift) in enumerate(terms):
            others = [each for at, each in enumerate(returns) if at != row]
            weight = returns[row] - sum(others) / len(others)
            total = total - (1 - tune.mix) * best - tune.mix * weight * own_log
            total = total + tune.gamma * drift * own_log
        return total / len(terms)
    n = tune.answers
    for prompt, some in enumerate(heard.answers):
        with torch.no_grad():
            drift = [float((scores(each) - scores(each, -1)).sum()) for each in some]
        worth = heard.rewards[prompt].tolist()
        if tune.method == "rloo":
            worth = [value - tune.kl * apart for value, apart in zip(worth, drift, strict=True)]
        mean = sum(worth) / n
        spread = (sum((each - mean) ** 2 for each in worth) / (n - 1)) ** 0.5
        for value, answer in zip(worth, some, strict=True):
            own = scores(answer)
            if tune.method == "rloo":
                total = total - (value - (sum(worth) - value) / (n - 1)) * own.sum()
                continue
            start = scores(answer, -1).detach()
            ahead = start - own
            pull = tune.kl * (ahead.exp() - ahead - 1)
            advantage = (value - mean) / (spread + 1e-4)
            total = total + (pull - advantage * (own - own.detach()).exp()).mean()
    return total / (n * len(heard.answers))


@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_is_that_of_answers_read_alone(online: Build, method: str) -> None:
    """In whatever pieces the trainer reads them; after steps that moved policy and anchor apart."""
    tune = {"mix": 0.3, "gamma": 0.5, "eta": 0.3, "kl": 0.2}
    run = online(method, tune=tune)
    for _ in range(2):
        run.step()
    first = run.progress.rows
    heard, _ = run._hear(first, [run.prompts.at(first + n) for n in range(4)])
    trained = [p for p in run.model.parameters() if p.requires_grad]
    loss = _by_hand(run, heard)
    wanted = torch.autograd.grad(loss, trained)
    assert max(float(each.abs().max()) for each in wanted) > 1e-3
    run._learn(run.method.lesson(heard))
    for parameter, gradient in zip(trained, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=2e-5)


@pytest.mark.sweep
@pytest.mark.parametrize("method", METHODS)
def test_the_reward_rises(online: Build, method: str) -> None:
    """On held-out prompts by three standard errors of the difference: else the harness is wrong."""
    tune: dict[str, Any] = {"prompts": 12, "answers": 4, "parameters": "full"}
    rate = 3e-3
    if method == "jbond":
        tune, rate = tune | {"prompts": 32, "mix": 0.3, "eta": 0.5}, 5e-3
    how = {"steps": 10, "rows": 48, "learning_rate": rate, "eval_every": 99, "eval_tokens": 2000}
    run = online(method, tune=tune, **how)
    before = run.validate().entries
    run.run()
    after = run.validate().entries
    error = math.hypot(before["held_out_reward_error"], after["held_out_reward_error"])
    assert after["held_out_reward"] - before["held_out_reward"] > 3 * error


def test_rewards_that_fail_are_counted_up_to_their_share(online: Build) -> None:
    """The run goes on without them; beyond the share it stops, with nothing changed."""

    def moody(prompt: str, answer: str, row: Mapping[str, Any]) -> float | None:
        return None if row["place"] % 5 == 0 else share_of_e(prompt, answer, row)

    for method in METHODS:
        run = online(method, method, moody, tune={"reward_failures": 0.9}, steps=2)
        run.run()
        failed = [entry["failures"].get("raised", 0) for entry in _log(run)]
        assert sum(failed) > 0 and all(map(math.isfinite, [e["reward"] for e in _log(run)]))
    run = online("grpo", "few", lambda *_: None, tune={"reward_failures": 0.5})
    before = _weights(run)
    with pytest.raises(TooManyFailures, match="failed on 12 of 12 answers"):
        run.step()
    assert run.progress.step == 0 and all(map(torch.equal, before, _weights(run)))


def test_too_many_failures_lose_no_step_and_can_be_allowed(online: Build) -> None:
    run = online("grpo", tune={"reward_failures": 0.5})
    run.step()
    _rewards(run).function = lambda *_: None
    with pytest.raises(TooManyFailures):
        run.step()
    again = online("grpo", tune={"reward_failures": 0.6})
    assert again.progress.step == 1 and all(map(torch.equal, _weights(run), _weights(again)))


@pytest.mark.parametrize("factor", [1.01, math.nan])
def test_engine_and_trainer_that_disagree_stop_the_run(
    factor: float, online: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = online("rloo")
    run.step()
    before = _weights(run)
    with monkeypatch.context() as patch:
        # What a trainer in training mode with dropout would do, say.
        learned = AnswerRows.hidden
        patch.setattr(AnswerRows, "hidden", lambda *given: learned(*given) * factor)
        with pytest.raises(
            DivergedError, match=r"step 2: the engine .* differ by .* about a token"
        ):
            run.step()
    assert run.progress.step == 1 and all(map(torch.equal, before, _weights(run)))
    assert run.step()["largest_gap"] < 2e-5


@pytest.mark.parametrize("at", [1, 9])
def test_a_stop_in_the_middle_of_a_step_changes_nothing(online: Build, at: int) -> None:
    run = online("jbond")
    run.step()
    before, asked = _weights(run), 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        if asked == at:
            raise Interrupted

    run._check_stop = ask  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(Interrupted):
        run.step()
    assert run.progress.step == 1 and all(map(torch.equal, before, _weights(run)))


def test_a_validation_is_the_same_whenever_it_is_asked_for(online: Build) -> None:
    run = online("rloo", eval_tokens=60)
    found = run.validate()
    count = len(_rewards(run).asked)
    assert run.validate() == found and found.worth == -found.entries["held_out_reward"]
    held_out = {run.held_out.listed(n).text for n in range(len(run.held_out))}
    trained = {run.prompts.at(n).text for n in range(len(run.prompts))}
    asked = {prompt for prompt, _, _ in _rewards(run).asked}
    assert asked <= held_out and not trained & held_out and 1 < count < len(held_out)
    run.step()
    assert run.validate() != found


def test_answers_end_where_the_tokenizer_says(online: Build) -> None:
    """And hold no id that has no text, which the model's embedding has."""
    run = online("rloo", tune={"answer_tokens": 30, "prompts": 8}, length=80)
    tokenizer = run.data.tokenizer
    assert tokenizer.vocab_size < run.model.config.vocab_size
    assert run.how.end_ids == {tokenizer.eos_id, tokenizer.end_of_turn_id}
    with torch.no_grad():  # the end is likely, and so are ids without a text
        run.model.model.embed_tokens.weight[tokenizer.eos_id] *= 2
    heard, _ = run._hear(0, [run.prompts.at(n) for n in range(8)])
    assert any(answer.ended for answer in heard.own)
    assert all(id < tokenizer.vocab_size for answer in heard.own for id in answer.ids)


def test_before_the_first_step_no_rate_is_blamed(online: Build) -> None:
    run = online("grpo")
    said = str(run._diverged(math.nan, math.nan))
    assert "look at the rewards and tune.alpha" in said and "learning_rate" not in said


def test_the_function_of_the_recipe_is_called_in_a_process(online: Build, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def reward(prompt, answer, row):\n    return row['place'] / 100\n")
    given = online("rloo", "given")
    tune = replace(given.tune, reward="mine.py:reward")  # beside the recipe
    recipe = replace(given.recipe, tune=tune, folder=tmp_path)
    with OnlineTrainer(recipe, tmp_path / "own", Reporter(quiet=True)) as run:
        entry = run.step()
        worth = [run.prompts.at(n).row["place"] / 100 for n in range(4)]
        assert entry["reward"] == pytest.approx(sum(worth) / 4)
        assert entry["ties"] == 1.0 and entry["failures"] == {}
        run.save()
    file.write_text(file.read_text() + "# edited\n")
    reporter, said = Reporter(quiet=True), list[str]()
    reporter.say = said.append  # pyright: ignore[reportAttributeAccessIssue]
    OnlineTrainer(recipe, tmp_path / "own", reporter).close()
    assert any("mine.py:reward is not what it was when step 1 was done" in line for line in said)


WRONG = {
    "dropout": ({"dropout": 0.1}, {}, r"tune\.dropout must be 0 for 'rloo', not 0\.1"),
    "accumulation": ({}, {"accumulation": 2}, r"train\.accumulation is 2; a step of 'rloo' is"),
    "tokens": ({}, {"steps": 0, "tokens": 999}, r"takes a budget in train\.steps or epochs"),
    "length": ({}, {"length": 6}, r"train\.length is 6, .* tune\.answer_tokens = 6"),
    "prompts": ({}, {"length": 8}, r"there is no prompt of at most 2 tokens"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be(online: Build, case: str) -> None:
    tune, train, words = WRONG[case]
    with pytest.raises(ValueError, match=words):
        online("rloo", tune=tune, **train)


def test_several_ranks_are_refused_with_a_reason(online: Build, tmp_path: Path) -> None:
    recipe = online("rloo").recipe
    with pytest.raises(ValueError, match=r"is for one process, not 2: it draws answers with the"):
        OnlineTrainer(recipe, tmp_path / "own", Reporter(quiet=True), ranks=Ranks(0, 2))
    assert not (tmp_path / "own").exists()


def test_sources_are_read_alike(online: Build, tmp_path: Path) -> None:
    run = online("rloo")
    [source] = run.recipe.data.sources
    for own in ({"weight": 2.0}, {"epochs": 1.0}):
        data = replace(run.recipe.data, source=(replace(source, **own),))
        with pytest.raises(ValueError, match=r"take weight and epochs out of \[\[data\.source\]\]"):
            OnlineTrainer(replace(run.recipe, data=data), tmp_path / "own", Reporter(quiet=True))


def test_epochs_are_steps(online: Build) -> None:
    run = online("rloo", steps=0, epochs=0.5)
    assert run.plan.total_steps == len(run.prompts) // 8
    run.step()
    run.save()
    more = replace(run.recipe, train=replace(run.recipe.train, epochs=1.0))
    run.close()
    given = more, run.out, Reporter(quiet=True)
    with OnlineTrainer(*given, extend=True, rewards=Called(share_of_e)) as again:
        assert again.plan.total_steps == len(again.prompts) // 4


@pytest.mark.parametrize("base", ["bfloat16", "int8", "int4"])
def test_on_a_packed_base_training_computes_what_answering_does(online: Build, base: str) -> None:
    """Sums over the vocabulary apart, which are made in another order."""
    run = online("jbond", tune={"base": base}, steps=2, dtype="bfloat16")
    run.run()
    assert max(entry["largest_gap"] for entry in _log(run)) < 2e-5


def test_products_in_bfloat16_are_not_the_engine_s(online: Build) -> None:
    run = online("rloo", tune={"parameters": "full"}, steps=2, dtype="bfloat16")
    run.run()
    gaps = [entry["largest_gap"] for entry in _log(run)]
    assert 1e-3 < max(gaps) < 0.2
