"""The rename table is a bijection, whatever the model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin.checkpoints.names import tensor_shapes
from griffin.checkpoints.rename import Flavour, deepmind_shapes, fits_deepmind, rules
from griffin.model import PRESETS, Griffin, GriffinConfig
from tests.support.toy_checkpoints import DEEPMIND
from tests.support.toy_models import GRIFFIN, HAWK


@pytest.mark.parametrize("config", [GRIFFIN, HAWK, DEEPMIND])
def test_names_and_shapes_are_those_of_the_model(config: GriffinConfig) -> None:
    with torch.device("meta"):
        state = Griffin(config).state_dict()
    assert tensor_shapes(config) == {name: tuple(tensor.shape) for name, tensor in state.items()}


configs = st.builds(
    lambda blocks, heads, head, gate, mlp, vocab: DEEPMIND.replace(
        block_types=blocks,
        num_heads=heads,
        num_gate_blocks=heads,
        width=heads * head * 4,
        lru_width=heads * gate,
        mlp_width=mlp,
        vocab_size=vocab,
    ),
    st.lists(st.sampled_from(["recurrent", "attention"]), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 5),
)


@settings(max_examples=25, deadline=None)
@given(configs, st.sampled_from(["torch", "flax"]))
def test_there_and_back_is_the_same(config: GriffinConfig, flavour: Flavour) -> None:
    table = rules(config, flavour)
    ours = [name for rule in table.values() for name in rule.huggingface]
    assert sorted(ours) == sorted(tensor_shapes(config)), "every tensor of ours, exactly once"

    shapes = deepmind_shapes(config, flavour)
    theirs = {name: torch.randn(shape) for name, shape in shapes.items()}
    split = {name: rule.transform.split(theirs[name]) for name, rule in table.items()}
    for name, rule in table.items():
        for part, tensor in zip(rule.huggingface, split[name], strict=True):
            assert tuple(tensor.shape) == tensor_shapes(config)[part]
        assert torch.equal(rule.transform.join(split[name]), theirs[name])
    values = sum(t.numel() for t in theirs.values())
    assert values == sum(t.numel() for parts in split.values() for t in parts)


def test_equations_of_the_reference_table() -> None:
    """The transforms as the reference writes them, index by index."""
    table = rules(DEEPMIND, "flax")
    shapes = deepmind_shapes(DEEPMIND, "flax")
    w = torch.randn(shapes["blocks.0.mlp_block.ffw_up.w"])
    gate, up = table["blocks.0.mlp_block.ffw_up.w"].transform.split(w)
    assert gate[3, 5] == w[0, 5, 3] and up[7, 2] == w[1, 2, 7]
    conv = torch.randn(shapes["blocks.0.recurrent_block.conv_1d.w"])
    (taps,) = table["blocks.0.recurrent_block.conv_1d.w"].transform.split(conv)
    assert taps[9, 0, 2] == conv[2, 9]
    kernel = torch.randn(shapes["blocks.0.recurrent_block.linear_x.kernel"])
    (weight,) = table["blocks.0.recurrent_block.linear_x.kernel"].transform.split(kernel)
    assert weight[4, 1] == kernel[1, 4]


def test_fits() -> None:
    assert fits_deepmind(DEEPMIND) == []
    assert {reason.split("=")[0] for reason in fits_deepmind(GRIFFIN)} == {
        "num_kv_heads", "conv_width", "rms_norm_eps", "rope_theta", "rope_fraction",
        "attention_bias", "tie_embeddings", "num_gate_blocks",
    }  # fmt: skip
    for name in ("recurrentgemma-2b", "recurrentgemma-9b", "griffin-7b", "hawk-7b"):
        assert fits_deepmind(PRESETS[name]) == []
