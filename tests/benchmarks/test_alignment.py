"""`python -m benchmarks alignment`: its tasks, what it measures, and that runs are done once."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.alignment import methods, runs
from benchmarks.alignment.learner import (
    Answers,
    draw,
    log_distributions,
    new_model,
    prompt_ids,
    stand,
    teach,
    token_logprobs,
)
from benchmarks.alignment.methods import Setting, best_of, learn
from benchmarks.alignment.report import best_at, lift, table
from benchmarks.alignment.tasks import BOS, END, TASKS, decode, encode


@pytest.mark.parametrize("name", TASKS)
def test_right_answers_are_paid_and_others_are_not(name):
    task = TASKS[name]
    items = task.items("x", 40)
    assert items == task.items("x", 40) != task.items("y", 40)
    assert len({len(item.prompt) for item in items}) == 1
    assert task.score(items, [item.answer for item in items]) == [1.0] * 40
    assert max(task.score(items, [""] * 40)) == 0.0
    assert max(len(item.answer) for item in items) < task.longest
    assert [decode(encode(item.answer)) for item in items] == [item.answer for item in items]


def test_an_answer_ends_with_its_first_end():
    prompts, a = torch.tensor([[BOS, 4, 2]] * 3), encode("a")[0]
    ids = torch.tensor([[a, END, a, END], [END, a, a, a], [a, a, a, a]])
    answers = Answers.of(prompts, ids)
    assert answers.mask.tolist() == [[True, True, False, False], [True] + [False] * 3, [True] * 4]
    assert answers.texts() == ["a", "", "aaaa"]
    assert answers.rows[0].tolist() == [BOS, 4, 2, a, END, END, END]
    both = answers.beside(Answers.of(prompts, ids[:, :2]))
    assert both.texts() == ["a", "", "aaaa", "a", "", "aa"]
    assert both.mask[3:].tolist() == [
        [True, True, False, False],
        [True] + [False] * 3,
        [True] * 2 + [False] * 2,
    ]


def test_probabilities_are_those_of_answers_alone():
    model, task = new_model(0), TASKS["sort, similarity"]
    items = task.items("x", 6)
    answers = draw(model, prompt_ids(items), task.longest, torch.Generator().manual_seed(0))
    found = token_logprobs(model, answers)
    for row, count in enumerate(answers.mask.sum(1).tolist()):
        prompt = [BOS, *encode(items[row].prompt)]
        ids = answers.ids[row, :count].tolist()
        logits, _ = model(torch.tensor([[*prompt, *ids[:-1]]]))
        alone = logits[0, len(prompt) - 1 :].log_softmax(-1)
        alone = alone.gather(1, torch.tensor(ids)[:, None])[:, 0]
        torch.testing.assert_close(found[row, :count], alone, atol=1e-5, rtol=0)
        assert found[row, count:].eq(0).all()


def test_answers_are_drawn_as_probable_as_the_model_finds_them():
    """First tokens of many answers to one prompt, by frequency."""
    model, task = new_model(0), TASKS["sort, similarity"]
    prompts = prompt_ids(task.items("x", 1)).expand(4000, -1)
    answers = draw(model, prompts, 1, torch.Generator().manual_seed(0))
    expected = log_distributions(model, answers)[0, 0].exp()
    seen = torch.bincount(answers.ids[:, 0], minlength=len(expected)) / 4000
    assert ((seen - expected).abs() < 5 * (expected * (1 - expected) / 4000).sqrt() + 1e-3).all()


def test_a_model_stands_at_no_distance_from_itself_and_away_from_another():
    one, other, task = new_model(0), new_model(1), TASKS["add, digits"]
    items = task.items("x", 32)
    same = stand(one, one, task, items, 2, torch.Generator().manual_seed(0))
    apart = stand(one, other, task, items, 2, torch.Generator().manual_seed(0))
    assert same.divergence == same.divergence_error == 0 and same.reward == apart.reward
    assert apart.divergence > 3 * apart.divergence_error > 0


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(methods, "SAMPLES", 24)
    for room in (methods, runs):
        monkeypatch.setattr(room, "HELD_OUT", 8)


@pytest.mark.parametrize("method", methods.METHODS)
def test_a_run_is_a_function_of_its_setting(small, method):
    task, base = TASKS["add, digits"], new_model(0)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    setting = Setting(task=task.name, method=method, rate=1e-3, seed=3, steps=4, kl=0.1)
    one, again = (learn(setting, task, base, measurements=2) for _ in range(2))
    assert [point["step"] for point in one["points"]] == [0, 2, 4]
    assert one["points"] == again["points"] and one["ties"] == again["ties"]
    assert one["points"][0]["divergence"] == 0 < one["points"][-1]["divergence"]
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


@pytest.mark.sweep
@pytest.mark.thorough
@pytest.mark.parametrize("method", methods.METHODS)
def test_each_method_raises_the_reward(method):
    task, base = TASKS["sort, similarity"], new_model(0)
    teach(base, task, 40)
    setting = Setting(task=task.name, method=method, rate=3e-3, seed=0, steps=30, eta=0.1)
    assert lift([learn(setting, task, base, measurements=1)]) > 3


def test_the_best_of_some_is_the_mean_over_all_choices():
    task, base = TASKS["add, digits"], new_model(0)
    teach(base, task, 20)
    found = best_of(task, base, seed=0, most=8, parts=2)
    items = [item for item in task.items("held out", methods.HELD_OUT) for _ in range(4)]
    random = torch.Generator().manual_seed(0)
    parts = [
        task.score(items, draw(base, prompt_ids(items), task.longest, random).texts())
        for _ in range(2)
    ]
    rewards = [
        [part[prompt * 4 + n] for part in parts for n in range(4)]
        for prompt in range(methods.HELD_OUT)
    ]
    for each in found:
        chosen = [
            sum(max(some) for some in itertools.combinations(row, int(each["n"])))
            / math.comb(8, int(each["n"]))
            for row in rewards
        ]
        assert each["reward"] == pytest.approx(sum(chosen) / len(chosen), abs=1e-6)
        assert each["divergence"] == pytest.approx(math.log(each["n"]) - 1 + 1 / each["n"])
    pairs = [a == b for row in rewards for a, b in itertools.permutations(row, 2)]
    assert found[0]["ties"] == pytest.approx(sum(pairs) / len(pairs))


def test_what_is_told_of_runs():
    def run(first, last, error):
        ends = [(first, error, 0.0), (last, error, 0.5)]
        points = [{"reward": r, "error": e, "divergence": d} for r, e, d in ends]
        return {
            "task": "t",
            "method": "rloo",
            "kl": 0.1,
            "rate": 0.01,
            "ties": 0.25,
            "eta": 0.02,
            "points": points,
        }

    assert lift([run(0.1, 0.5, 0.1), run(0.1, 0.3, 0.1)]) == pytest.approx(0.3 / 0.02**0.5)
    best = [
        {"n": 1, "reward": 0.2, "divergence": 0.0, "ties": 0.5},
        {"n": 4, "reward": 0.6, "divergence": 1.0, "ties": 0.5},
    ]
    assert best_at(best, 0.25) == pytest.approx(0.3) and best_at(best, 1.1) is None
    lines = table([run(0.1, 0.5, 0.1), run(0.1, 0.3, 0.1)], {"t": best}, "t").splitlines()
    assert lines[2] == "| REINFORCE, KL 0.1 | 0.01 | 0.400 ± 0.100 | 0.50 ± 0.00 | 0.400 | 25% |"
    assert lines[3:] == [
        "| best of 1 | | 0.200 | 0.00 | | 50% |",
        "| best of 4 | | 0.600 | 1.00 | | 50% |",
    ]


@pytest.mark.thorough
def test_what_is_done_is_not_done_again(small, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "TAUGHT", {"small": {"add": 2}})
    monkeypatch.setattr(runs, "lift", lambda group: 3.0)
    command = ["alignment", "--task", "add, digits", "--seeds", "1", "--steps", "2"]
    command += ["--out", str(tmp_path)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "results.json").read_text())
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    assert len(results["runs"]) == len(runs.ETAS) + len(runs.STRENGTHS) + 1
    assert len(results["swept"]) == sum(map(len, runs.RATES["small"].values()))

    def refuse(*given):
        raise AssertionError("it was done before")

    for name in ("learn", "teach", "best_of"):
        monkeypatch.setattr(runs, name, refuse)
    assert CliRunner().invoke(main, command).exit_code == 0
    again = json.loads((tmp_path / "results.json").read_text())
    assert again["runs"] == results["runs"] and again["swept"] == results["swept"]
    monkeypatch.setattr(runs, "lift", lambda group: 2.9)
    done = CliRunner().invoke(main, ["--debug", *command])
    assert isinstance(done.exception, RuntimeError) and "harness" in str(done.exception)


def test_a_task_of_no_name():
    done = CliRunner().invoke(main, ["alignment", "--task", "sing", "--out", "x"])
    assert done.exit_code == 2 and "sort, similarity" in done.output
