"""`python -m benchmarks lora`: steps of an adapter on a base that lies as the engine has it."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.lora import lora_learner
from griffin.bench.training import Setting
from griffin.quant import quantize_model
from tests.support.toy_models import HAWK, make_model

STEP = ("--length", "24", "--threads", "1", "--rank", "4")


@pytest.mark.parametrize(("more", "format"), [((), "bf16"), (("--quantize", "int4"), "int4")])
def test_a_step_of_the_bundled_model(more, format, tmp_path):
    out = tmp_path / "report.json"
    done = CliRunner().invoke(main, ["lora", *STEP, *more, "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    [measured] = found["measurements"]
    assert measured["format"] == format and measured["context"] == 24
    assert measured["tokens_per_second"] > 0 and measured["loss"] > 0
    assert measured["peak_resident_bytes"] >= measured["resident_bytes"] > 0
    assert "tokens a second of the processor" in found["notes"][0]


def test_the_adapter_learns_and_the_base_does_not():
    model = quantize_model(make_model(HAWK, dtype=torch.bfloat16), "int4")
    learner, batch = lora_learner(model, 4, 1), Setting(rows=2, length=24).batch(HAWK.vocab_size)
    base = [buffer.clone() for buffer in model.buffers()]
    first = learner.step(batch)
    learner.optimizer.param_groups[0]["lr"] = 1e-2
    for _ in range(10):
        last = learner.step(batch)
    assert last < first - 0.1
    assert all(map(torch.equal, base, model.buffers()))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert learner.operations(1) > 6 * trained
