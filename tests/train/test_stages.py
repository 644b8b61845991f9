"""Runs with stages and with budgets in epochs: the log, resuming at borders, extending."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch

from griffin.train.loop import Trainer
from tests.train.test_loop import _log, _weights

Build = Callable[..., Trainer]


STAGES = [
    {"name": "first", "steps": 3, "schedule": "constant"},
    {"steps": 3, "learning_rate": 1e-4, "schedule": "linear"},
]


def test_a_run_in_stages_stopped_after_every_step_is_the_same_run(trainer: Build) -> None:
    straight = trainer("straight", steps=0, stage=STAGES, length=96, rows=5)
    straight.run()
    entries = _log(straight)
    assert [entry["stage"] for entry in entries] == ["first"] * 3 + ["2"] * 3
    assert [e["learning_rate"] for e in entries][2:4] == [1e-3, 1e-4]
    assert entries[-1]["epoch"] > 1  # an epoch ends on the way
    for _ in range(6):
        stopped = trainer("stopped", steps=0, stage=STAGES, length=96, rows=5)
        stopped.step()
        stopped.save()
    assert all(map(torch.equal, _weights(straight), _weights(stopped)))


def test_a_budget_in_epochs(trainer: Build) -> None:
    ours = trainer("run", steps=0, epochs=1.5, length=96, schedule="constant")
    rows = ours.packer.rows_per_epoch
    assert ours.plan.total_steps == int(rows * 1.5) // 2
    ours.run()
    assert _log(ours)[-1]["epoch"] == pytest.approx(1.5, abs=2 / rows)
    longer = trainer("run", extend=True, steps=0, epochs=2.0, length=96, schedule="constant")
    assert longer.plan.total_steps == rows
    longer.run()
    planned = trainer("planned", steps=0, epochs=2.0, length=96, schedule="constant")
    planned.run()
    assert all(map(torch.equal, _weights(planned), _weights(longer)))


def test_stages_are_extended_where_the_steps_done_stay_what_they_were(trainer: Build) -> None:
    trainer("run", steps=0, stage=STAGES[:1]).run()
    extended = trainer("run", extend=True, steps=0, stage=STAGES)
    extended.run()
    planned = trainer("planned", steps=0, stage=STAGES)
    planned.run()
    assert all(map(torch.equal, _weights(planned), _weights(extended)))
    [noted] = json.loads((extended.out / "recipe.json").read_text())["extended"]
    assert noted == {"at_step": 3, "from_steps": 3, "to_steps": 6}
    other = [STAGES[0] | {"learning_rate": 0.5}, STAGES[1]]
    with pytest.raises(ValueError, match="step 1 had the rate"):
        trainer("run", extend=True, steps=0, stage=other)
    mixed = [STAGES[0] | {"weights": {"files": 1.0}}, STAGES[1]]
    with pytest.raises(ValueError, match=r"step 1 was mixed by \{\}; .* by \{'files': 1\.0\}"):
        trainer("run", extend=True, steps=0, stage=mixed)
