"""A head in a format of its own: in memory, calibrated, in files, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import griffin
from griffin import checkpoints
from griffin.capacity import model_bytes
from griffin.checkpoints import Quantization
from griffin.cli import main
from griffin.cli.shared.model_source import ModelSource
from griffin.cli.shared.spec import spec_of
from griffin.model.packed import head_format, packed_format, rounded_format
from griffin.quant import calibrate, quantize_model
from tests.support.toy_checkpoints import same
from tests.support.toy_folder import write_toy
from tests.support.toy_models import GRIFFIN, make_model, make_tokens

SHAPES = {"tied": GRIFFIN.replace(tie_embeddings=True), "untied": GRIFFIN}
HEADS = {"tied": "model.embed_tokens", "untied": "lm_head"}


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_each_layer_is_as_in_a_model_of_its_format(shape):
    config = SHAPES[shape]
    model = quantize_model(make_model(config), "int4", head="int8")
    alike = {each: quantize_model(make_model(config), each) for each in ("int4", "int8")}
    names = [name for name in model.state_dict() if name.endswith("weight_packed")]
    for name in names:
        which = "int8" if name.startswith(HEADS[shape]) else "int4"
        assert torch.equal(model.get_buffer(name), alike[which].get_buffer(name)), name
    assert (packed_format(model), head_format(model)) == ("int4", "int8")
    assert rounded_format(model) == "int4, head int8" and rounded_format(alike["int4"]) == "int4"
    # What goes before the head is int4's where the embedding is; the head is int8's.
    tokens = make_tokens(config, 2, 20)
    hidden, _ = model.trunk(tokens)
    if shape == "untied":
        assert torch.equal(hidden, alike["int4"].trunk(tokens)[0])
    assert torch.equal(model.unembed(hidden), alike["int8"].unembed(hidden))
    model.model.layers[0].register_forward_hook(lambda *_: None)
    assert torch.equal(model.trunk(tokens)[0], hidden), "module by module, as in one native call"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("calibrated", [False, True])
def test_on_disk_and_in_memory_are_one(tmp_path: Path, shape, calibrated):
    config = SHAPES[shape]
    checkpoints.save_model(make_model(config), tmp_path / "plain")
    sample = make_tokens(config, 2, 40) if calibrated else None
    made = checkpoints.quantize(tmp_path / "plain", tmp_path / "small", "int4", sample, head="int8")
    stored = griffin.load_model(tmp_path / "small")
    model = make_model(config)
    if sample is None:
        quantize_model(model, "int4", head="int8")
    else:
        calibrate(model, sample, "int4", head="int8")
    assert same(stored, model) and head_format(stored) == "int8"
    opened = checkpoints.open(tmp_path / "small")
    assert opened.quantization == Quantization("int4", calibrated, "int8")
    assert opened.nbytes == made.nbytes == model_bytes(config, stored.dtype, "int4", "int8")
    checkpoints.save_model(stored, tmp_path / "again", calibrated=calibrated)
    assert same(griffin.load_model(tmp_path / "again"), stored)
    checkpoints.convert(tmp_path / "small", tmp_path / "float")
    assert torch.equal(griffin.load_model(tmp_path / "float").head_weight, stored.head_weight)


def test_the_command(tmp_path: Path):
    folder = write_toy(tmp_path / "toy")
    given = ["quantize", str(folder), str(tmp_path / "small"), "--format", "int4", "--head", "int8"]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 0 and "small: int4, head int8, " in result.stdout, result.output
    written = json.loads((tmp_path / "small/config.json").read_text())["quantization_config"]
    assert written["format"] == "int4" and written["head"] == "int8"
    llm = griffin.load(tmp_path / "small")
    assert llm.generate("x", max_tokens=2).ids and "int4, head int8" in repr(llm)
    spec = spec_of(ModelSource(model=str(tmp_path / "small")))
    assert spec.weight_bytes("int4") == checkpoints.open(tmp_path / "small").nbytes
    assert spec.weight_bytes("int8") == model_bytes(spec.config, spec.dtype, "int8")


def test_refusals():
    for given in (("int4", "q4"), ("q4", "int8")):
        with pytest.raises(ValueError, match="no format 'q4'"):
            quantize_model(make_model(GRIFFIN), *given)
    with pytest.raises(ValueError, match="bf16 has nothing to calibrate"):
        calibrate(make_model(GRIFFIN), make_tokens(GRIFFIN, 1, 9), "int4", head="bf16")
    both = quantize_model(make_model(GRIFFIN), "int4", head="int4")
    assert head_format(both) is None
