"""A stop in the middle of held-out figures or samples: they are taken when the run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from griffin.train import evaluate, run
from griffin.train.checkpoint import read_progress
from griffin.train.loop import Trainer
from griffin.train.stopping import Interrupted
from tests.support.signalling import signal_after

Build = Callable[..., Trainer]
TIMED = ("seconds", "tokens_per_second", "peak_bytes")
WATCHED: dict[str, Any] = {"prompts": ["def f1(x", "x"], "sample_tokens": 6, "length": 8}


@pytest.fixture
def straight(trainer: Build) -> Trainer:
    """A run of six steps, with held-out figures and samples after steps 3 and 6."""
    ours = trainer("straight", **WATCHED)
    ours.run()
    return ours


def _log(out: Path) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{key: e[key] for key in e if key not in TIMED} for e in entries]


def _progress(path: Path) -> dict[str, Any]:
    return vars(read_progress(path)) | {"seconds": 0.0}


def _same(resumed: Trainer, straight: Trainer) -> None:
    assert _log(resumed.out) == _log(straight.out)
    for mine, theirs in zip(resumed.model.parameters(), straight.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for name in ("step-0000006", "best"):
        mine, theirs = (each.checkpoints / name for each in (resumed, straight))
        assert _progress(mine) == _progress(theirs)


def _stop_in_batch(number: int, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Have SIGTERM come in a batch of held-out rows; return a list as long as batches are read."""
    batches, nats = list[None](), evaluate._nats
    asking = signal_after(number, nats)

    def counted(*args: Any, **named: Any) -> Any:
        batches.append(None)
        return asking(*args, **named)

    monkeypatch.setattr(evaluate, "_nats", counted)
    return batches


@pytest.mark.parametrize(
    ("of_step", "skipped"), [(3, 0), (6, 1)], ids=["in the middle", "at the end"]
)
def test_held_out_rows(
    straight: Trainer,
    trainer: Build,
    monkeypatch: pytest.MonkeyPatch,
    of_step: int,
    skipped: int,
) -> None:
    with monkeypatch.context() as patch:
        batches = _stop_in_batch(10_000, patch)
        straight.validate()
        each = len(batches)
    assert each > 3
    with monkeypatch.context() as patch:
        batches = _stop_in_batch(each * skipped + 2, patch)
        with pytest.raises(Interrupted) as stop:
            trainer(**WATCHED).run()
        assert len(batches) == each * skipped + 2
    assert stop.value.path is not None and stop.value.path.name == f"step-000000{of_step}"
    owed = read_progress(stop.value.path).owed
    assert owed is not None and owed["step"] == of_step and len(owed["samples"]) == 2
    out = stop.value.path.parents[1]
    assert [entry["step"] for entry in _log(out)] == list(range(1, of_step))

    with monkeypatch.context() as patch:  # once more at the same place
        _stop_in_batch(1, patch)
        with pytest.raises(Interrupted) as again:
            trainer(**WATCHED).run()
    assert again.value.path == stop.value.path and read_progress(stop.value.path).owed == owed

    resumed = trainer(**WATCHED)
    assert resumed.progress.step == of_step
    resumed.run()
    _same(resumed, straight)

    ended = trainer(**WATCHED)  # nothing is left to do
    with monkeypatch.context() as patch:
        batches = _stop_in_batch(10_000, patch)
        ended.run()
    assert not batches
    _same(ended, straight)


@pytest.mark.parametrize("token", [1, 4, 8])
def test_samples(
    straight: Trainer, trainer: Build, token: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first prompt's continuation and in the second's; none of it is kept."""
    ours = trainer(**WATCHED)
    calls, unembed = list[None](), signal_after(token, ours.model.unembed)

    def counted(*args: Any) -> Any:
        calls.append(None)
        return unembed(*args)

    monkeypatch.setattr(ours.model, "unembed", counted)
    with pytest.raises(Interrupted) as stop:
        ours.run()
    assert len(calls) == token and stop.value.path is not None
    owed = read_progress(stop.value.path).owed
    assert owed is not None and owed["step"] == 3 and "samples" not in owed
    resumed = trainer(**WATCHED)
    resumed.run()
    _same(resumed, straight)


def test_a_step_that_a_stop_was_asked_in_is_not_looked_at(
    trainer: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = trainer()
    ours.objective.forward = signal_after(3, ours.objective.forward)
    batches, forward = list[None](), ours.objective.forward

    def counted(*args: Any) -> Any:
        batches.append(None)
        return forward(*args)

    monkeypatch.setattr(ours.objective, "forward", counted)
    with pytest.raises(Interrupted) as stop:
        ours.run()
    assert len(batches) == 3 and stop.value.path is not None
    assert read_progress(stop.value.path).owed is not None


def test_a_kill_before_the_checkpoint_knows_that_nothing_is_owed(
    straight: Trainer, trainer: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is in the log, the checkpoint still owes it: it is there once in the end."""
    with monkeypatch.context() as patch:
        _stop_in_batch(1, patch)
        with pytest.raises(Interrupted):
            trainer(**WATCHED).run()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "update_progress", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer(**WATCHED).run()
    assert [entry["step"] for entry in _log(straight.out.with_name("run"))] == [1, 2, 3]
    resumed = trainer(**WATCHED)
    resumed.run()
    _same(resumed, straight)


def test_an_extended_run_takes_what_the_longer_plan_has(
    trainer: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 5 was the last one and is no longer; a run planned so has no figures there."""
    planned = trainer("planned", steps=8, schedule="constant")
    planned.run()
    with monkeypatch.context() as patch:
        _stop_in_batch(1, patch)
        with pytest.raises(Interrupted):
            trainer(steps=5, eval_every=100, schedule="constant").run()
    extended = trainer(steps=8, schedule="constant", extend=True)
    assert extended.progress.step == 5
    extended.run()
    entries = _log(extended.out)
    assert [entry["step"] for entry in entries] == [*range(1, 9)]
    assert entries[4] == _log(planned.out)[4] and entries[7] == _log(planned.out)[7]
