"""A stop that one rank hears while held-out rows are read, or samples taken, ends all ranks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from griffin.train import evaluate
from griffin.train.checkpoint import read_progress
from griffin.train.loop import Trainer
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.train.scale.ranks import Ranks
from griffin.train.stopping import Interrupted
from tests.support.ranks import on_ranks
from tests.support.signalling import signal_after

TIMED = ("seconds", "tokens_per_second", "peak_bytes")


def train(ranks: Ranks, values: dict[str, Any], out: Path) -> Trainer:
    return Trainer(Recipe.from_dict(values), out, Reporter(quiet=True), ranks=ranks)


def stopped(ranks: Ranks, values: dict[str, Any], out: Path) -> None:
    """Run until a stop comes; it must leave a checkpoint that owes what was interrupted."""
    with train(ranks, values, out) as ours, pytest.raises(Interrupted) as stop:
        ours.run()
    assert stop.value.path is not None and stop.value.path.name == "step-0000002"
    owed = read_progress(stop.value.path).owed
    assert owed is not None and owed["step"] == 2
    [first] = (out / "log.jsonl").read_text().splitlines()
    assert json.loads(first)["step"] == 1


def work(ranks: Ranks, values: dict[str, Any], folder: Path) -> None:
    with train(ranks, values, folder / "straight") as ours:
        ours.run()

    nats = evaluate._nats
    if ranks.rank == 1:  # the second rank hears it, in its second batch
        evaluate._nats = signal_after(2, nats)
    stopped(ranks, values, folder / "rows")
    evaluate._nats = nats

    with train(ranks, values, folder / "samples") as ours:
        take, check = ours._samples, ours._check_stop

        def taking() -> list[dict[str, str]]:
            """The writer takes the samples; the other rank hears the signal while it waits."""
            if ranks.rank == 1:
                ours._check_stop = signal_after(1, check)  # pyright: ignore
            return take()

        ours._samples = taking  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(Interrupted):
            ours.run()
    owed = read_progress(folder / "samples" / "checkpoints" / "step-0000002").owed
    assert owed is not None and "samples" not in owed

    for name in ("rows", "samples"):
        with train(ranks, values, folder / name) as ours:
            assert ours.progress.step == 2
            ours.run()


def log(out: Path) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{key: e[key] for key in e if key not in TIMED} for e in entries]


@pytest.mark.thorough
def test_two_ranks(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    values = recipe(
        steps=4, rows=2, length=8, eval_every=2, prompts=["def f1(x"], sample_tokens=5
    ).to_dict()
    on_ranks(2, work, values, tmp_path)
    straight = log(tmp_path / "straight")
    assert [entry["step"] for entry in straight] == [1, 2, 3, 4]
    assert len(straight[1]["samples"]) == 1 and "held_out_bits_per_byte" in straight[1]
    for name in ("rows", "samples"):
        assert log(tmp_path / name) == straight
        for part in ("straight", name):
            assert read_progress(tmp_path / part / "checkpoints" / "step-0000004").owed is None
        files = sorted((tmp_path / "straight/checkpoints/step-0000004").glob("*.safetensors"))
        assert len(files) == 2
        for file in files:
            theirs = load_file(file)
            mine = load_file(tmp_path / name / "checkpoints" / "step-0000004" / file.name)
            assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
