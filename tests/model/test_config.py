"""The config: strict about what it is given, and no field without effect."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from griffin.model import PRESETS, Griffin, GriffinConfig
from griffin.model.init import init_std
from tests.support.toy_models import GRIFFIN, make_model, make_tokens

# A changed value for each field; those that change the shape of a parameter as well as those that
# do not.
CHANGES: dict[str, Any] = {
    "vocab_size": 90,
    "width": 96,
    "mlp_width": 88,
    "lru_width": 60,
    "num_heads": 2,
    "num_kv_heads": 3,
    "num_gate_blocks": 4,
    "block_types": ("recurrent",) * 5,
    "attention_window_size": 8,
    "conv_width": 4,
    "logits_soft_cap": 0.0,
    "scale_embeddings": False,
    "rms_norm_eps": 1e-2,
    "rope_theta": 50.0,
    "rope_fraction": 0.25,
    "attention_bias": False,
    "tie_embeddings": True,
}


def test_every_field_is_listed() -> None:
    assert set(CHANGES) == {field.name for field in dataclasses.fields(GriffinConfig)}


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_changes_the_output(field: str) -> None:
    base, changed = make_model(GRIFFIN), make_model(GRIFFIN.replace(**{field: CHANGES[field]}))
    tokens = make_tokens(GRIFFIN, 1, 40)
    expected = base(tokens)[0]
    if {n: p.shape for n, p in base.named_parameters()} == {
        n: p.shape for n, p in changed.named_parameters()
    }:
        # Equal weights: the field alone makes the difference.
        changed.load_state_dict(base.state_dict())
        assert not torch.allclose(changed(tokens)[0], expected, atol=1e-4)
    else:
        with pytest.raises(RuntimeError):
            changed.load_state_dict(base.state_dict())


def test_round_trip() -> None:
    for config in [*PRESETS.values(), GRIFFIN]:
        assert GriffinConfig.from_dict(config.to_dict()) == config


def test_unknown_key_suggests_the_right_one() -> None:
    with pytest.raises(ValueError, match=r"'lru_widht' \(did you mean 'lru_width'\?\)"):
        GriffinConfig.from_dict(GRIFFIN.to_dict() | {"lru_widht": 3})


def test_missing_key_is_named() -> None:
    fields = GRIFFIN.to_dict()
    del fields["width"]
    with pytest.raises(ValueError, match="lacks width"):
        GriffinConfig.from_dict(fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 50),
        ("width", 0),
        ("width", 48.0),
        ("num_kv_heads", 4),
        ("num_gate_blocks", 7),
        ("block_types", ()),
        ("block_types", ("recurrent", "attenion")),
        ("logits_soft_cap", -1.0),
        ("logits_soft_cap", "30"),
        ("rms_norm_eps", 0.0),
        ("rope_fraction", 0.2),
        ("rope_fraction", 1.5),
        ("scale_embeddings", 1),
        ("conv_width", True),
    ],
)
def test_bad_values_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field.replace("block_types", "block_types|blocks")):
        GRIFFIN.replace(**{field: value})


def test_unknown_preset_suggests_one() -> None:
    with pytest.raises(ValueError, match="did you mean 'recurrentgemma-2b'"):
        GriffinConfig.preset("recurrentgemma2b")


@pytest.mark.parametrize(
    ("preset", "total", "embedding"),
    [
        ("recurrentgemma-2b", 2_682_862_080, 655_360_000),
        ("recurrentgemma-9b", 8_579_977_216, 1_048_576_000),
        ("griffin-7b", 7_795_144_704, 1_048_576_000),
        ("hawk-7b", 8_161_562_624, 1_048_576_000),
    ],
)
def test_parameter_counts_of_the_papers(preset: str, total: int, embedding: int) -> None:
    with torch.device("meta"):
        model = Griffin(GriffinConfig.preset(preset))
    assert sum(p.numel() for p in model.parameters()) == total
    assert model.model.embed_tokens.weight.numel() == embedding


@pytest.mark.sweep
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_build(preset: str) -> None:
    with torch.device("meta"):
        model = Griffin(GriffinConfig.preset(preset))
    kinds = [layer.temporal_block.__class__.__name__ for layer in model.model.layers]
    expected = [
        "LocalAttentionBlock" if k == "attention" else "RecurrentBlock"
        for k in model.config.block_types
    ]
    assert kinds == expected


def test_initial_values() -> None:
    """Standard deviations of the reference torch code, and `a` within its ring."""
    torch.manual_seed(0)
    config = GriffinConfig.preset("nano").replace(width=192, mlp_width=768)
    model = Griffin(config)
    for name, parameter in model.named_parameters():
        if name.endswith("recurrent_param"):
            a = torch.exp(-torch.nn.functional.softplus(parameter.detach()))
            assert 0.9 <= a.min() < 0.92 and 0.98 < a.max() <= 0.999
            continue
        expected = {
            "embed_tokens.weight": 192**-0.5,
            "linear_x.weight": 192**-0.5,
            "linear_out.weight": (2 / 6 / 192) ** 0.5,
            "o_proj.weight": (2 / 6 / 192) ** 0.5,
            "down_proj.weight": (2 / 6 / 768) ** 0.5,
            "gate_proj.weight": 192**-0.5,
            "input_gate_weight": 64**-0.5,
            "conv_1d.weight": 0.05,
        }
        for suffix, std in expected.items():
            if name.endswith(suffix):
                assert parameter.std().item() == pytest.approx(std, rel=0.08), name
                assert init_std(name, config) == pytest.approx(std)
        if name.endswith(("bias", "norm.weight")):
            assert torch.count_nonzero(parameter) == 0, name
