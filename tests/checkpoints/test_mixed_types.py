"""A checkpoint in several types loads as one model, and whatever was accepted computes."""

from __future__ import annotations

import json
import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import griffin
import griffin.checkpoints as checkpoints
from griffin.checkpoints import CheckpointError, CheckpointWarning
from griffin.model import Griffin, GriffinConfig
from tests.support.toy_checkpoints import DEEPMIND, edit_config, same
from tests.support.toy_models import make_model, make_tokens

BF16, F32, F16 = torch.bfloat16, torch.float32, torch.float16
# What public fine-tunes leave in a wider type.
PARTS = {
    "the embedding": "embed_tokens",
    "biases": "bias",
    "norms": "norm",
    "a projection": "down_proj.weight",
    "the gates": "rg_lru",
    "one layer": "layers.1.",
    "the convolution": "conv_1d",
    "the recurrence": "recurrent_param",
}


def mixed(folder: Path, parts: tuple[str, ...], others: torch.dtype = F32, **config: Any) -> None:
    """Write a bfloat16 checkpoint, some tensors of which are of another type."""
    checkpoints.save_model(make_model(DEEPMIND, dtype=BF16), folder)
    file = folder / "model.safetensors"
    tensors = {
        name: t.to(others) if any(part in name for part in parts) else t.clone()
        for name, t in load_file(file).items()
    }
    assert len({t.dtype for t in tensors.values()}) == 2
    save_file(tensors, file)
    edit_config(folder, drop=() if config else ("dtype", "torch_dtype"), **config)


def quiet(folder: Path, **how: Any) -> Griffin:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)
        return checkpoints.load_model(folder, **how)


@pytest.mark.sweep
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("stated", [None, "bfloat16", "float32", "float16"])
def test_it_computes_in_one_type(tmp_path: Path, part: str, stated: str | None) -> None:
    config = {"dtype": stated, "torch_dtype": stated} if stated else {}
    mixed(tmp_path / "m", (PARTS[part],), **config)
    checkpoint = checkpoints.open(tmp_path / "m")
    expected = getattr(torch, stated) if stated else F32 if part == "the embedding" else BF16
    assert checkpoint.own_dtype == expected
    assert "weights in torch.bfloat16, torch.float32" in checkpoint.notes[0]
    for asked in (None, BF16, F32):
        model = quiet(tmp_path / "m", dtype=asked)
        assert {p.dtype for p in model.parameters()} == {asked or expected}
        logits, state = model(make_tokens(DEEPMIND, 2, 20))
        assert torch.isfinite(logits).all()
        model(make_tokens(DEEPMIND, 2, 1), state)


@pytest.mark.parametrize("part", PARTS)
def test_it_computes_what_a_converted_checkpoint_does(tmp_path: Path, part: str) -> None:
    mixed(tmp_path / "m", (PARTS[part],), dtype="bfloat16", torch_dtype="bfloat16")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)
        checkpoints.convert(tmp_path / "m", tmp_path / "one", dtype=BF16)
    tokens = make_tokens(DEEPMIND, 1, 30)
    for quantize in (None, "bf16", "int8"):
        one = quiet(tmp_path / "one", quantize=quantize)
        several = quiet(tmp_path / "m", quantize=quantize)
        assert torch.equal(several(tokens)[0], one(tokens)[0])


def test_every_two_parts(tmp_path: Path) -> None:
    for number, parts in enumerate(combinations(PARTS.values(), 2)):
        mixed(tmp_path / str(number), parts)
        quiet(tmp_path / str(number))(make_tokens(DEEPMIND, 1, 3))


def test_one_type_stays_whatever_the_config_says(tmp_path: Path) -> None:
    checkpoints.save_model(make_model(DEEPMIND, dtype=BF16), tmp_path)
    edit_config(tmp_path, dtype="float32", torch_dtype="float32")
    checkpoint = checkpoints.open(tmp_path)
    assert checkpoint.own_dtype == BF16
    assert "says torch.float32" in checkpoint.notes[0] and "bfloat16" in checkpoint.notes[0]


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_quantized_with_other_weights_in_two_types(tmp_path: Path, quantize: str) -> None:
    mixed(tmp_path / "m", ("norm",), dtype="bfloat16", torch_dtype="bfloat16")
    checkpoints.quantize(tmp_path / "m", tmp_path / "q", quantize)
    model = quiet(tmp_path / "q")
    assert {p.dtype for p in model.parameters()} == {BF16}
    model(make_tokens(DEEPMIND, 1, 20))
    with griffin.ops.use("eager"):
        model(make_tokens(DEEPMIND, 1, 20))


@pytest.mark.thorough
@pytest.mark.parametrize("stated", [None, "bfloat16", "float32"])
def test_as_transformers_does(tmp_path: Path, stated: str | None) -> None:
    transformers = pytest.importorskip("transformers")
    config = {"dtype": stated} if stated else {}
    for part in ("embed_tokens", "bias", "down_proj.weight", "norm"):
        folder = tmp_path / part
        mixed(folder, (part,), **config)
        edit_config(folder, drop=("torch_dtype",))
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        assert theirs.dtype == checkpoints.open(folder).own_dtype
        ours = quiet(folder)
        for name, tensor in theirs.state_dict().items():
            if name in ours.state_dict():
                assert torch.equal(ours.state_dict()[name].to(tensor.dtype), tensor), name


ROWS = DEEPMIND.vocab_size


@pytest.mark.parametrize("rows", [(ROWS + 7, ROWS), (ROWS, ROWS + 7), (ROWS + 7, ROWS + 3)])
@pytest.mark.parametrize("says", [True, None])
def test_a_head_that_differs_in_padding_alone(
    tmp_path: Path, rows: tuple[int, int], says: bool | None
) -> None:
    model = make_model(DEEPMIND)
    checkpoints.save_model(model, tmp_path)
    weight = model.model.embed_tokens.weight
    tensors = load_file(tmp_path / "model.safetensors")
    for name, count, fill in (("model.embed_tokens", rows[0], 1.0), ("lm_head", rows[1], 2.0)):
        padding = torch.full((count - ROWS, DEEPMIND.width), fill)
        tensors[f"{name}.weight"] = torch.cat([weight, padding])
    save_file(tensors, tmp_path / "model.safetensors")
    edit_config(tmp_path, drop=() if says else ("tie_word_embeddings",))
    loaded = quiet(tmp_path)
    assert loaded.config == DEEPMIND and same(loaded, model)
    # Another value in a real row is another head.
    tensors["lm_head.weight"][ROWS - 1, 3] += 1
    save_file(tensors, tmp_path / "model.safetensors")
    if says:
        with pytest.raises(CheckpointError, match="differs from"):
            checkpoints.open(tmp_path)
    else:
        assert not quiet(tmp_path).config.tie_embeddings


@st.composite
def configs(draw: st.DrawFn) -> GriffinConfig:
    """Draw a config of small size, with numbers from the ends of what is allowed."""
    heads, kv = draw(st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 2)]))
    gates = draw(st.sampled_from([1, 2, 3]))
    head = draw(st.sampled_from([2, 4, 6, 8]))
    fraction = draw(st.sampled_from([0.0, 0.5, 1.0]))
    ends = {
        "rms_norm_eps": st.floats(1e-30, 1.0),
        "rope_theta": st.floats(1.0, 1e12),
        "logits_soft_cap": st.just(0.0) | st.floats(1e-3, 1e9),
    }
    return GriffinConfig(
        vocab_size=draw(st.integers(1, 12)),
        width=head * heads,
        mlp_width=draw(st.integers(1, 9)),
        lru_width=gates * draw(st.integers(1, 5)),
        num_heads=heads,
        num_kv_heads=kv,
        num_gate_blocks=gates,
        block_types=tuple(
            draw(st.lists(st.sampled_from(["recurrent", "attention"]), min_size=1, max_size=3))
        ),
        attention_window_size=draw(st.integers(1, 9) | st.sampled_from([1000, 1 << 20])),
        conv_width=draw(st.integers(1, 6) | st.just(256)),
        rope_fraction=fraction if int(head * fraction) % 2 == 0 else 0.0,
        scale_embeddings=draw(st.booleans()),
        attention_bias=draw(st.booleans()),
        tie_embeddings=draw(st.booleans()),
        **{name: draw(values) for name, values in ends.items()},
    )


@pytest.mark.thorough
@settings(max_examples=30, deadline=None)
@given(configs(), st.sampled_from(["float32", "bfloat16"]), st.sampled_from([None, "bf16", "int8"]))
def test_every_config_that_is_accepted_computes(
    tmp_path_factory: pytest.TempPathFactory, config: GriffinConfig, dtype: str, quantize: Any
) -> None:
    folder = tmp_path_factory.mktemp("m")
    checkpoints.save_model(make_model(config, dtype=checkpoints.parse_dtype(dtype)), folder)
    assert json.loads((folder / "config.json").read_text())
    model = quiet(folder, quantize=quantize)
    assert model.config == config
    logits, state = model(make_tokens(config, 1, 7))
    again, _ = model(make_tokens(config, 1, 1), state)
    assert torch.isfinite(logits).all() and torch.isfinite(again).all()
