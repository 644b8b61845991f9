"""A preview of the head: how it is rounded, what a model makes of it, in files and by commands."""

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
from griffin.conversation.fingerprint import fingerprint_of
from griffin.model.packed import rounded_format, screen_format
from griffin.model.screen import unembed_best
from griffin.ops import Packed, native, pack, unpack
from griffin.quant import add_screen, calibrate, int3, quantize_model, screen
from tests.support.toy_checkpoints import same
from tests.support.toy_folder import write_toy
from tests.support.toy_models import GRIFFIN, make_model, make_tokens

CONFIG = GRIFFIN.replace(vocab_size=203)  # 13 panels, of which three are read whole
SHAPES = {"tied": CONFIG.replace(tie_embeddings=True), "untied": CONFIG}


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_scales_are_of_least_squares() -> None:
    """No other scale of a group is better, whatever values go with it."""
    weight = normal(24, 64) * torch.linspace(0.1, 3, 24)[:, None]
    groups = weight.view(-1, 32)
    error = (unpack(int3.quantize(weight)) - weight).view(-1, 32).square().sum(1)
    for factor in torch.linspace(0.2, 1.1, 60):
        scale = groups.abs().amax(1, keepdim=True) * factor / 3.5
        levels = scale[..., None] * (torch.arange(8) - 3.5)
        other = (levels - groups[..., None]).square().amin(2).sum(1)
        # A scale in half precision, and the steps between candidates.
        assert (error <= other * 1.06).all()
    assert error.sum() < 0.9 * (unpack(pack(weight, "int3")) - weight).square().sum()


def test_zeros_and_the_largest_weights_are_no_trouble() -> None:
    weight = normal(16, 64)
    weight[3] = 0
    weight[4] = 1e6
    found = unpack(int3.quantize(weight))
    assert torch.isfinite(found).all() and (found[3] == 0).all()
    assert unpack(int3.quantize(weight[:, :40])).shape == (16, 40)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("format", ["int8", "int4", "bf16"])
@torch.no_grad()
def test_the_best_logits_are_exact(shape, format, monkeypatch):
    monkeypatch.setattr(screen, "_PANELS", 4)  # rounded in pieces
    model = add_screen(quantize_model(make_model(SHAPES[shape], dtype=torch.bfloat16), format))
    assert isinstance(model.head, Packed) and model.screen is not None
    preview = model.screen.packed
    made = int3.quantize(unpack(model.head))
    assert torch.equal(preview.data, made.data) and torch.equal(preview.low, made.low)
    hidden, _ = model.trunk(make_tokens(CONFIG, 3, 20))
    full, best = model.unembed(hidden), unembed_best(model, hidden)
    mass = unembed_best(model, hidden, bits=3)
    assert model.screen.panels == {2: 3, 3: 4}
    assert ((mass == full).sum(2) >= 48 + 11).all()
    # A bit more halves the error of what is not exact, about.
    apart = [(each - full)[each != full].abs().mean() for each in (mass, best)]
    assert 0.3 * apart[1] < apart[0] < 0.7 * apart[1]
    exact = best == full
    assert (exact.sum(2) >= 32 + 11).all() and (~exact).sum() > 0.5 * exact.numel()
    # Toy weights are random, so that a preview tells less than one of a trained model.
    assert (best.argmax(2) == full.argmax(2)).float().mean() > 0.7
    assert (best - full).abs().mean() < 0.5 * full.std()
    for row in range(3):
        alone = unembed_best(model, hidden[row : row + 1, 7:8])
        assert torch.equal(alone[0, 0], best[row, 7]) or not native.built()
        alone = unembed_best(model, hidden[row : row + 1, 7:8], bits=3)
        assert torch.equal(alone[0, 0], mass[row, 7]) or not native.built()


def test_without_a_screen_nothing_is_left_out():
    model = quantize_model(make_model(CONFIG), "int8")
    hidden = normal(2, CONFIG.width)
    assert torch.equal(unembed_best(model, hidden), model.unembed(hidden))
    assert screen_format(model) is None and rounded_format(model) == "int8"
    assert rounded_format(add_screen(model)) == "int8, screen int3"
    bf16 = add_screen(quantize_model(make_model(CONFIG), "bf16"))
    assert rounded_format(bf16) == "bf16, screen int3"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("calibrated", [False, True])
def test_on_disk_and_in_memory_are_one(tmp_path: Path, shape, calibrated):
    config = SHAPES[shape]
    checkpoints.save_model(make_model(config), tmp_path / "plain")
    sample = make_tokens(config, 2, 40) if calibrated else None
    made = checkpoints.quantize(
        tmp_path / "plain", tmp_path / "small", "int4", sample, head="int8", screen=True
    )
    stored = griffin.load_model(tmp_path / "small")
    model = make_model(config)
    if sample is None:
        quantize_model(model, "int4", head="int8")
    else:
        calibrate(model, sample, "int4", head="int8")
    assert same(stored, add_screen(model)) and screen_format(stored) == "int3"
    opened = checkpoints.open(tmp_path / "small")
    assert opened.quantization == Quantization("int4", calibrated, "int8", "int3")
    size = model_bytes(config, stored.dtype, "int4", "int8", "int3")
    assert opened.nbytes == made.nbytes == size
    checkpoints.save_model(stored, tmp_path / "again", calibrated=calibrated)
    assert same(griffin.load_model(tmp_path / "again"), stored)
    checkpoints.convert(tmp_path / "small", tmp_path / "float")
    assert torch.equal(griffin.load_model(tmp_path / "float").head_weight, stored.head_weight)
    assert griffin.load_model(tmp_path / "small", screen=False).screen is None


def test_one_is_made_while_loading(tmp_path: Path):
    checkpoints.save_model(make_model(CONFIG), tmp_path / "plain")
    checkpoints.quantize(tmp_path / "plain", tmp_path / "small", "int8")
    model = add_screen(quantize_model(make_model(CONFIG), "int8"))
    assert same(griffin.load_model(tmp_path / "plain", quantize="int8", screen=True), model)
    assert same(griffin.load_model(tmp_path / "small", screen=True), model)


def test_another_model_is_behind_a_screen(tmp_path: Path):
    """States made with it are told apart, whether it was stored or not."""
    folder = write_toy(tmp_path / "toy")
    plain = griffin.load(folder, quantize="int8")
    screened = griffin.load(folder, quantize="int8", screen=True)
    found = fingerprint_of(screened).differences(fingerprint_of(plain))
    assert found == {"quantization": ("int8, screen int3", "int8")}
    assert "screen int3" in repr(screened)


def test_the_commands(tmp_path: Path):
    folder, small = write_toy(tmp_path / "toy"), tmp_path / "small"
    given = ["quantize", str(folder), str(small), "--format", "int4", "--head", "int8", "--screen"]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 0 and "int4, head int8, with a screen, " in result.stdout
    written = json.loads((small / "config.json").read_text())["quantization_config"]
    assert written["screen"] == "int3"
    spec = spec_of(ModelSource(model=str(small)))
    assert spec.weight_bytes("int4") == checkpoints.open(small).nbytes
    for given in (["--model", str(small)], ["--model", str(folder), "--quantize=int8", "--screen"]):
        plain = CliRunner().invoke(main, ["generate", "x", *given, "--max-tokens", "4", "--json"])
        assert plain.exit_code == 0, plain.output


def test_refusals(tmp_path: Path):
    folder = write_toy(tmp_path / "toy")
    for load in (griffin.load, griffin.load_model):
        with pytest.raises(ValueError, match="beside a packed head; quantize the model to int8"):
            load(folder, screen=True)
    with pytest.raises(ValueError, match="beside a packed head"):
        add_screen(make_model(CONFIG))
    with pytest.raises(ValueError, match="for the CPU; the model is for cuda:1"):
        screen.check_screen(torch.device("cuda:1"), True)
    checkpoints.quantize(folder, tmp_path / "small", "int8", screen=True)
    config = json.loads((tmp_path / "small/config.json").read_text())
    config["quantization_config"]["screen"] = "int2"
    (tmp_path / "small/config.json").write_text(json.dumps(config))
    with pytest.raises(checkpoints.CheckpointError, match="has screen 'int2'; expected int3"):
        checkpoints.open(tmp_path / "small")
    checkpoints.quantize(folder, tmp_path / "bare", "int8")
    config["quantization_config"]["screen"] = "int3"
    (tmp_path / "bare/config.json").write_text(json.dumps(config))
    with pytest.raises(checkpoints.CheckpointError, match=r"lacks screen\.weight_packed"):
        checkpoints.open(tmp_path / "bare")
