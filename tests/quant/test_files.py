"""Quantized checkpoints on disk: equal to quantizing on the fly, and what damage is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

import griffin
from griffin import checkpoints
from griffin.checkpoints import CheckpointError, Quantization
from griffin.cli import main
from griffin.quant import quantize_model
from tests.support.toy_checkpoints import same
from tests.support.toy_folder import write_toy
from tests.support.toy_models import GRIFFIN, HAWK, make_model, make_tokens


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("quant") / "toy", temperature=0.5)


@pytest.fixture
def int8(folder: Path, tmp_path: Path) -> Path:
    checkpoints.quantize(folder, tmp_path / "int8", "int8")
    return tmp_path / "int8"


@pytest.mark.sweep
@pytest.mark.parametrize("shape", [GRIFFIN, HAWK], ids=["griffin", "hawk"])
@pytest.mark.parametrize("format", ["int8", "int4", "bf16"])
def test_on_disk_and_on_the_fly_are_one(tmp_path: Path, shape, format: str) -> None:
    checkpoints.save_model(make_model(shape), tmp_path / "plain")
    made = checkpoints.quantize(
        tmp_path / "plain", tmp_path / "small", format, max_shard_size=20_000
    )
    stored = griffin.load_model(tmp_path / "small")
    flown = griffin.load_model(tmp_path / "plain", quantize=format)
    assert same(stored, flown) and same(stored, quantize_model(make_model(shape), format))
    assert stored.config == shape and len(list((tmp_path / "small").glob("*.safetensors"))) > 1
    checkpoints.save_model(stored, tmp_path / "again")
    assert same(griffin.load_model(tmp_path / "again"), stored)
    opened = checkpoints.open(tmp_path / "small")
    assert opened.quantization == Quantization(format) and opened.nbytes == made.nbytes
    with torch.no_grad():
        tokens = make_tokens(shape, 1, 9)
        assert torch.equal(
            stored.requires_grad_(False)(tokens)[0], flown.requires_grad_(False)(tokens)[0]
        )


def test_packed_weights_start_on_a_cache_line(int8: Path) -> None:
    model = griffin.load_model(int8)
    for name, tensor in model.state_dict().items():
        assert (
            tensor.data_ptr() % (64 if name.endswith(("_packed", "_scale")) else tensor.itemsize)
            == 0
        ), name


def test_text_from_a_quantized_folder(folder: Path, int8: Path) -> None:
    stored, flown = griffin.load(int8), griffin.load(folder, quantize="int8")
    assert stored.defaults.temperature == 0.5  # generation_config.json and tokenizer came along
    prompt = "def load(path):"
    found = stored.generate(prompt, max_tokens=12, temperature=0)
    assert found.ids == flown.generate(prompt, max_tokens=12, temperature=0).ids
    assert griffin.load(int8, quantize="int8").score("import re") == stored.score("import re")


def test_float_again(int8: Path, tmp_path: Path) -> None:
    """`convert` unpacks, so a quantized checkpoint can travel on as an ordinary one."""
    checkpoints.convert(int8, tmp_path / "plain")
    plain = griffin.load_model(tmp_path / "plain")
    packed = griffin.load_model(int8)
    assert checkpoints.open(tmp_path / "plain").quantization is None
    assert torch.equal(plain.head_weight, packed.head_weight)


@pytest.mark.thorough
def test_the_command(folder: Path, tmp_path: Path) -> None:
    result = run("quantize", folder, tmp_path / "a", "--format", "int4")
    assert result.exit_code == 0 and "a: int4, 0.000 GB, " in result.stdout, result.output
    text = tmp_path / "sample.txt"
    text.write_text(Path(json.__file__).read_text() * 2)
    result = run(
        *("quantize", folder, tmp_path / "b", "--format", "int4", "--calibrate", text),
        *("--calibrate-tokens", 3000, "--json"),
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["calibrated_on"] == 2 * 1024 and told["bytes"] < 0.2 * told["bytes_before"]
    assert json.loads((tmp_path / "b/config.json").read_text())["quantization_config"] == {
        "quant_method": "griffin",
        "version": 1,
        "format": "int4",
        "calibrated": True,
    }
    assert griffin.load(tmp_path / "b").generate("x", max_tokens=2).ids
    shown = run("info", tmp_path / "b", "--json")
    assert shown.exit_code == 0 and json.loads(shown.stdout)["weights"]["dtypes"]["int4"] > 100_000
    result = run("generate", "x = 1", "--model", folder, "--quantize", "int8", "--max-tokens", 2)
    assert result.exit_code == 0, result.output


def test_misuse(folder: Path, int8: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("too little")
    binary = tmp_path / "binary"
    binary.write_bytes(bytes(range(128, 256)) * 9)
    new = tmp_path / "new"
    for arguments, message in (
        ((folder, new, "--format", "int3"), "int3"),
        ((folder, folder, "--format", "int8"), "exists already"),
        ((int8, new, "--format", "int4"), "is int8 already; quantize the original weights"),
        ((tmp_path / "none", new, "--format", "int8"), "does not exist"),
        ((folder, new, "--format", "int4", "--calibrate", short), "calibration needs 255"),
        ((folder, new, "--format", "int4", "--calibrate", binary), "is no UTF-8 text"),
        ((folder, new, "--format", "bf16", "--calibrate", short), "nothing to calibrate"),
    ):
        result = run("quantize", *arguments)
        assert result.exit_code == 2 and message in result.stderr, result.stderr
        assert not new.exists() and not list(tmp_path.glob(".*partial*"))
    with pytest.raises(CheckpointError, match="is int8 already; for int4 quantize the original"):
        griffin.load_model(int8, quantize="int4")
    with pytest.raises(ValueError, match="no format 'int2'"):
        griffin.load(folder, quantize="int2")


def test_nan_is_refused(folder: Path, tmp_path: Path) -> None:
    model = griffin.load_model(folder)
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp_block.up_proj.weight")[3, 4] = float("nan")
    checkpoints.save_model(model, tmp_path / "bad")
    with pytest.raises(
        CheckpointError, match=r"layers\.1\.mlp_block\.up_proj\.weight holds 1 values"
    ):
        checkpoints.quantize(tmp_path / "bad", tmp_path / "new", "int8")
    with pytest.raises(CheckpointError, match="NaN"):
        griffin.load_model(tmp_path / "bad", quantize="int4")
    assert not (tmp_path / "new").exists()


def test_truncated(int8: Path) -> None:
    file = int8 / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=rf"{file} is truncated"):
        griffin.load_model(int8)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("weight_packed", lambda t: None, "lacks model.layers.0.mlp_block.up_proj.weight_packed"),
        ("weight_scale", lambda t: None, "lacks model.layers.0.mlp_block.up_proj.weight_scale"),
        (
            "weight_packed",
            lambda t: t[:, :-64],
            r"up_proj.weight_packed is \[8, 960\] torch.uint8, expected",
        ),
        (
            "weight_scale",
            lambda t: t.half(),
            r"up_proj.weight_scale is \[128\] torch.float16, expected",
        ),
        (
            "weight_more",
            lambda t: torch.ones(2),
            "holds model.layers.0.mlp_block.up_proj.weight_more",
        ),
    ],
)
def test_what_does_not_fit(int8: Path, part: str, change, message: str) -> None:
    file = int8 / "model.safetensors"
    tensors = {key: tensor.clone() for key, tensor in load_file(file).items()}
    name = f"model.layers.0.mlp_block.up_proj.{part}"
    if (changed := change(tensors.pop(name, None))) is not None:
        tensors[name] = changed.contiguous()
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoints.open(int8)
    assert str(int8) in str(caught.value)


def test_spoiled_scales_are_found_on_demand(int8: Path) -> None:
    file = int8 / "model.safetensors"
    tensors = {key: tensor.clone() for key, tensor in load_file(file).items()}
    tensors["model.embed_tokens.weight_scale"][7] = float("inf")
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight holds \d+ values"):
        checkpoints.load_model(int8, check=True)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"quant_method": "bitsandbytes", "load_in_8bit": True},
            "quant_method 'bitsandbytes'; expected",
        ),
        (
            {"quant_method": "griffin", "version": 2, "format": "int8"},
            "version 2; this griffin reads 1",
        ),
        (
            {"quant_method": "griffin", "version": 1, "format": "int5"},
            "format 'int5'; expected one of int8",
        ),
        ({"quant_method": "griffin", "version": 1, "format": "int4"}, "for int4 weights"),
        (
            {"quant_method": "griffin", "version": 1, "format": "int8", "grp": 3},
            "unknown keys: 'grp'",
        ),
        (
            {"quant_method": "griffin", "version": 1, "format": "int8", "calibrated": 1},
            "true or false",
        ),
        (
            {"quant_method": "griffin", "version": 1, "format": "int8", "head": "int5"},
            "head 'int5'; expected one of int8",
        ),
        ([1], "must be an object"),
        (None, "holds model.embed_tokens.weight_"),
    ],
)
def test_a_wrong_quantization_config(int8: Path, config, message: str) -> None:
    file = int8 / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": config}))
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoints.open(int8)
    assert str(int8) in str(caught.value)
