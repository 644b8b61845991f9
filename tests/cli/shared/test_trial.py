"""A trial of a model's first layers: which they are, and that it measures."""

from __future__ import annotations

import torch

from griffin.bench.work import weight_bytes
from griffin.cli.shared import trial
from griffin.model import GriffinConfig


def test_a_trial_runs_the_first_layers(monkeypatch):
    config = GriffinConfig.preset("nano")
    whole = trial.Trial(config, torch.float32, "int8")
    assert whole.layers == config.num_layers
    monkeypatch.setattr(trial, "LEAST", 1 << 20)
    monkeypatch.setattr(trial, "_SECONDS", 0.01)
    some = trial.Trial(config, torch.bfloat16, "int8")
    assert 1 < some.layers < config.num_layers and some._plan.weight_bytes >= 1 << 20
    assert set(some._config.block_types) == {"recurrent", "attention"}
    assert some._plan.weight_bytes == weight_bytes(some._model)
    assert some.rate(1) > 1e7 and some.rate(3) > 1e7
