"""`python -m benchmarks adapter`: decode with an adapter and without, by turns."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

import griffin
from benchmarks.__main__ import main
from benchmarks.adapter import new_adapter
from griffin.adapters import adapt
from tests.support.toy_folder import write_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("model") / "toy")


def test_it_tells_what_each_format_takes(toy):
    arguments = ["adapter", "--model", str(toy), "--rank", "4", "--pairs", "2", "--prompt", "3"]
    done = CliRunner().invoke(main, [*arguments, "--rows", "2", "--threads", "1", "--json"])
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["format"] for one in found] == ["bf16", "int8", "int4"]
    assert all(one["without"] > 0 and one["with_"] > 0 and one["rows"] == 2 for one in found)
    # A and B of ten kinds of layers, in float32, as the toy is.
    inner = 2 * (3 * (64 + 64)) + (64 + 64 + 2 * (64 + 16) + 64 + 64) + 3 * 3 * (64 + 128)
    assert {one["adapter_bytes"] for one in found} == {4 * inner * 4}
    assert found[2]["bytes_share"] > found[0]["bytes_share"] > 0
    told = CliRunner().invoke(main, [*arguments, "--format", "int4"])
    assert "int4, 1 rows: " in told.stdout and " % of the model's" in told.stdout


def test_the_adapter_that_is_measured_changes_every_product(toy):
    model = griffin.load_model(toy, device="cpu")
    made = new_adapter(model, 2)
    assert all(tensor.any() for tensor in made.tensors.values())
    tokens = torch.tensor([[2, 3]])
    without = model.trunk(tokens)[0]
    assert not torch.equal(adapt(model, made).trunk(tokens)[0], without)
