"""`python -m benchmarks train`: rivals of equal size that learn."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.train import SHAPES, compiled, recurrentgemma, transformer
from griffin.bench.training import Setting, griffin_learner


@pytest.mark.parametrize("name", ["42m", "5.9m", "toy"])
def test_the_transformer_has_as_many_weights(name):
    with torch.device("meta"):
        ours, rival = (make(SHAPES[name], "float32") for make in (griffin_learner, transformer))
    sizes = [sum(p.numel() for p in each.model.parameters()) for each in (ours, rival)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)
    assert name == "toy" or sizes[0] / 1e6 == pytest.approx(float(name[:-1]), rel=0.02)


@pytest.mark.parametrize(
    "make", [transformer, recurrentgemma, pytest.param(compiled, marks=pytest.mark.slow)]
)
def test_a_rival_learns(make):
    if make is recurrentgemma:
        pytest.importorskip("transformers")
    learner, batch = make(SHAPES["toy"], "float32"), Setting(rows=2, length=24).batch(256)
    first = learner.step(batch)
    assert first == pytest.approx(torch.tensor(256.0).log().item(), rel=0.3)
    for _ in range(20):
        last = learner.step(batch)
    assert last < first - 0.1


def test_the_transformer_is_causal():
    model = transformer(SHAPES["toy"], "float32").model
    tokens = torch.arange(12)[None]
    changed = tokens.clone()
    changed[0, 6] = 99
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.isclose(before[:, 6:], after[:, 6:]).all(-1).any()


def test_both_by_turns(tmp_path):
    out = tmp_path / "report.json"
    sizes = ("--length", "16", "--length", "32", "--tokens", "64", "--rounds", "1")
    done = CliRunner().invoke(
        main, ["train", "--shape", "toy", *sizes, "--json", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["program"], row["context"], row["batch"]) for row in rows] == [
        *(("griffin", 16, 4), ("transformer", 16, 4)),
        *(("griffin", 32, 2), ("transformer", 32, 2)),
    ]
    notes = json.loads(out.read_text())["notes"]
    ratio = rows[0]["tokens_per_second"] / rows[1]["tokens_per_second"]
    assert notes[0] == f"toy, 16 tokens: {ratio:.2f} times transformer"
