"""A stop is heard from a run's start to its end, and loses no whole step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from griffin.cli.train import command
from griffin.train import checkpoint, evaluate, export
from griffin.train.data.encode import Encoder
from griffin.train.loop import Trainer
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.train.stopping import Interrupted, StopRequest
from griffin.tune.defaults import as_toml
from tests.support.signalling import signal_after

Build = Callable[..., Trainer]


def test_half_a_step_is_thrown_away(trainer: Build) -> None:
    """Stopped in the second of a step's three micro-batches, it ends there; the run that goes on
    has the bits of the one that never stopped."""
    straight = trainer("straight", accumulation=3)
    straight.run()

    stopped = trainer("stopped", accumulation=3)
    forward = stopped.objective.forward
    calls: list[int] = []

    def counted(*args: Any) -> Any:
        calls.append(1)
        return forward(*args)

    stopped.objective.forward = signal_after(8, counted)
    with pytest.raises(Interrupted) as stop:
        stopped.run()
    assert len(calls) == 8 and stop.value.path is not None
    assert stop.value.path.name == "step-0000002"

    resumed = trainer("stopped", accumulation=3)
    assert resumed.progress.step == 2
    resumed.run()
    for mine, theirs in zip(resumed.model.parameters(), straight.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_stop_before_the_first_step_leaves_no_checkpoint(trainer: Build) -> None:
    ours = trainer(accumulation=2)
    ours.objective.forward = signal_after(1, ours.objective.forward)
    with pytest.raises(Interrupted, match="before the first step") as stop:
        ours.run()
    assert stop.value.path is None and not list(ours.checkpoints.glob("step-*"))
    assert trainer(accumulation=2).step()["step"] == 1


def test_a_stop_while_documents_are_encoded(
    recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    encode = Encoder.encode
    monkeypatch.setattr(Encoder, "encode", signal_after(5, encode))
    with pytest.raises(Interrupted, match="before the first step"):
        Trainer(recipe(), tmp_path / "run", Reporter(quiet=True))
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.setattr(Encoder, "encode", encode)
    with Trainer(recipe(), tmp_path / "run", Reporter(quiet=True)) as again:  # the lock is free
        assert again.step()["step"] == 1


def test_what_is_heard_is_said_once() -> None:
    said: list[str] = []
    stop = StopRequest(said.append)
    with pytest.raises(KeyboardInterrupt), stop.heard():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked and len(said) == 1
        with pytest.raises(Interrupted):
            stop.check()
        os.kill(os.getpid(), signal.SIGINT)
    assert not stop.asked and len(said) == 1


def test_the_only_checkpoint_is_not_replaced_by_itself(
    trainer: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped twice at one step, it keeps what it has: a kill while it is put away would cost all
    of the run."""
    removed: list[str] = []
    remove = checkpoint._remove
    monkeypatch.setattr(
        checkpoint, "_remove", lambda path: (removed.append(path.name), remove(path))
    )
    first = trainer(keep=1, accumulation=2)
    first.objective.forward = signal_after(3, first.objective.forward)
    with pytest.raises(Interrupted) as stop:
        first.run()
    again = trainer(keep=1, accumulation=2)
    again.objective.forward = signal_after(1, again.objective.forward)
    with pytest.raises(Interrupted) as same:
        again.run()
    assert same.value.path == stop.value.path and "step-0000001" not in removed
    assert trainer(keep=1, accumulation=2).progress.step == 1


def test_a_reporter_imports_nothing_when_it_is_told_of_a_signal():
    """A signal may come while the first line is being printed, and imports what that takes."""
    program = (
        "import sys\n"
        "from griffin.train.report import Reporter\n"
        "reporter = Reporter()\n"
        "before = set(sys.modules)\n"
        "reporter.say(':owl: stopping in [bold] /tmp/caf\u00e9')\n"
        "print(sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert ":owl: stopping in [bold] /tmp/caf" in done.stderr


@pytest.mark.parametrize("where", ["_nats", "chunked_cross_entropy", "compressors"])
def test_a_stop_while_the_finished_model_is_measured(
    recipe: Callable[..., Recipe], tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heard within a batch: exit code 130 and how to go on; the run that goes on measures alone."""
    file, out = tmp_path / "recipe.toml", tmp_path / "run"
    file.write_text(as_toml(recipe(steps=2, eval_every=100).to_dict()))
    words = [str(file), "--out", str(out), "--threads", "1"]
    room = export if where == "compressors" else evaluate
    measure = export.measure

    def stopped(*args: Any, **named: Any) -> Any:
        monkeypatch.setattr(room, where, signal_after(1, getattr(room, where)))
        return measure(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(export, "measure", stopped)
        result = CliRunner().invoke(command, words)
    monkeypatch.undo()
    assert result.exit_code == 130, result.output
    assert f"everything so far is in {out / 'checkpoints' / 'step-0000002'}" in result.stderr
    assert f"to go on: griffin train {file} --out {out}" in result.stderr
    assert (out / "model").is_dir() and not (out / "results.json").exists()
    again = CliRunner().invoke(command, words)
    assert again.exit_code == 0 and (out / "results.json").exists(), again.output
    assert len((out / "log.jsonl").read_text().splitlines()) == 2


def test_a_stop_in_the_last_step_is_not_forgotten(trainer: Build) -> None:
    ours = trainer(steps=1)
    ours.objective.forward = signal_after(1, ours.objective.forward)
    with pytest.raises(Interrupted, match="step-0000001"), ours.stoppable():
        try:
            ours.run()
        except Interrupted as stop:
            assert stop.path is not None
        ours.stop.check()
