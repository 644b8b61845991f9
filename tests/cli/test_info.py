"""`griffin info`: numbers that can be checked against the model itself."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest
import torch

import griffin
from griffin.cli.info import state_bytes
from griffin.model import GriffinConfig, State
from tests.support.toy_folder import CONFIG


def test_json_tells_what_the_model_is(run, folder):
    facts = json.loads(run("info", folder, "--json").stdout)
    model = griffin.load_model(folder, device="cpu")
    assert facts["parameters"]["total"] == sum(p.numel() for p in model.parameters())
    assert facts["parameters"]["embedding"] == 512 * 64
    assert facts["weights"]["bytes"] == sum(p.nbytes for p in model.parameters())
    assert facts["config"] == CONFIG.to_dict()
    assert facts["tensors"] == {name: list(t.shape) for name, t in model.state_dict().items()}
    assert facts["kernels"] == griffin.ops.describe()
    assert facts["versions"]["torch"] == version("torch")
    assert facts["state"]["most"] == State.zeros(CONFIG).nbytes


def test_text_for_people(run, folder):
    text = run("info", folder).stdout
    assert (
        "2 recurrent, 1 attention" in text
        and "512 x 64" in text
        and "mlp_block.up_proj.weight" in text
    )
    assert "model.layers.2." not in text
    assert "model.layers.2." in run("info", folder, "--tensors").stdout


@pytest.mark.parametrize(
    ("preset", "most"), [("recurrentgemma-2b", 17_238_016), ("recurrentgemma-9b", 26_230_784)]
)
def test_released_shapes(run, preset, most):
    facts = json.loads(run("info", preset, "--preset", "--json").stdout)
    assert facts["state"]["most"] == most


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_bytes_are_those_of_a_state(dtype):
    for config in (CONFIG, GriffinConfig.preset("nano"), CONFIG.replace(block_types=["recurrent"])):
        expected = State.zeros(config, dtype=dtype).nbytes
        assert state_bytes(config, dtype)["most"] == expected


def test_misuse(run, tmp_path):
    result = run("info", tmp_path)
    assert result.exit_code == 2 and "holds no checkpoint" in result.stderr
    result = run("info", "recurrentgema-2b", "--preset")
    assert result.exit_code == 2 and "did you mean 'recurrentgemma-2b'" in result.stderr
