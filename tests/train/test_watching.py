"""What a run says of itself while it goes on, and runs in a picture."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from griffin.cli.train import command
from griffin.train import watching
from griffin.train.checkpoint import RunProgress
from griffin.train.loop import Trainer
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter

Build = Callable[..., Trainer]


def _judged(losses: list[float], progress: RunProgress) -> list[int]:
    found: list[int] = []
    for loss in losses:
        progress.step += 1
        if watching.spike(loss, progress) is not None:
            found.append(progress.step)
    return found


def test_spikes_are_what_stands_out_of_the_noise() -> None:
    """A falling, noisy loss has none; two jumps are two, and the second is not hidden by the
    first."""
    chance = random.Random(0)
    losses = [3 + 5 / (1 + step / 30) + chance.gauss(0, 0.1) for step in range(300)]
    assert _judged(losses, RunProgress(recipe="")) == []
    losses[200], losses[205] = 40.0, losses[205] + 4
    assert _judged(losses, RunProgress(recipe="")) == [201, 206]


def test_a_resumed_run_judges_as_one_that_never_stopped() -> None:
    chance = random.Random(1)
    losses = [2 + chance.gauss(0, 0.1) for _ in range(100)]
    losses[70] = 9.0
    straight, stopped = RunProgress(recipe=""), RunProgress(recipe="")
    _judged(losses, straight)
    _judged(losses[:40], stopped)
    again = RunProgress(**json.loads(json.dumps(vars(stopped))))
    assert _judged(losses[40:], again) == [71] and again == straight


def test_a_spike_is_logged_and_said(trainer: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = trainer(steps=4, log_every=100, eval_every=100)
    monkeypatch.setattr(
        "griffin.train.watching.spike", lambda loss, p: 7.5 if p.step == 2 else None
    )
    said: list[str] = []
    monkeypatch.setattr(ours.reporter, "say", said.append)
    ours.matrix_limit = 1e6
    ours.run()
    log = [json.loads(line) for line in (ours.out / "log.jsonl").read_text().splitlines()]
    assert [(entry["step"], entry.get("spike")) for entry in log] == [(2, 7.5), (4, None)]
    assert any(
        line.startswith("step 2: the loss is 6.") and "8 deviations" in line for line in said
    )
    assert log[0]["matrix_share"] == pytest.approx(log[0]["tokens_per_second"] / 1e6)
    assert 50e6 < log[0]["peak_bytes"] < 1e12


def test_samples_at_prompts(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """The likeliest tokens, as the model gives them without a state; a look changes no weight."""
    common: dict[str, Any] = {"steps": 4, "sample_every": 2, "sample_tokens": 6, "eval_every": 100}
    prompts = ["def f1(x", ""]
    watched = Trainer(recipe(**common, prompts=prompts), tmp_path / "a", Reporter(quiet=True))
    plain = Trainer(recipe(**common), tmp_path / "b", Reporter(quiet=True))
    for run in (watched, plain):
        run.run()
    for mine, theirs in zip(watched.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert watched.recipe.digest() == plain.recipe.digest()
    log = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    taken = {entry["step"]: entry["samples"] for entry in log if "samples" in entry}
    assert sorted(taken) == [2, 4] and [each["prompt"] for each in taken[4]] == prompts
    tokenizer = watched.data.tokenizer
    ids = tokenizer.encode(prompts[0])
    made = list[int]()
    while len(made) < 6:
        hidden, _ = watched.model.trunk(torch.tensor([ids + made]))
        logits = watched.model.unembed(hidden[0, -1])
        made.append(int(logits[: tokenizer.vocab_size].argmax()))
    assert tokenizer.eos_id not in made and taken[4][0]["text"] == tokenizer.decode(made)


def test_runs_in_a_picture(trainer: Build, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, steps in (("short", 4), ("long", 30)):
        trainer(name, steps=steps).run()
    runs = [str(tmp_path / name) for name in ("short", "long")]
    for ending, begins in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        out = tmp_path / f"runs.{ending}"
        result = CliRunner().invoke(command, [*runs, "--plot", "--out", str(out)])
        assert result.stdout == f"2 runs drawn into {out}\n"
        assert out.read_bytes().startswith(begins)
    assert not list(tmp_path.glob(".runs*"))
    text = out.read_text()
    assert "held out, bits per byte" in text and "short" in text and "long" in text
    refused = CliRunner().invoke(command, [str(tmp_path), "--plot", "--out", str(out)])
    assert "is no run's folder" in str(refused.exception)
    assert CliRunner().invoke(command, ["nano", "nano"]).exit_code == 2
