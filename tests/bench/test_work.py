"""Bytes and operations, counted a second way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from griffin.bench import work
from griffin.model import GriffinConfig, State
from tests.support.toy_models import GRIFFIN, HAWK, make_model, make_tokens


class Record(NamedTuple):
    data: Tensor
    scale: Tensor


@dataclass
class Other:
    data: Tensor
    name: str


def test_every_tensor_counts_once_wherever_a_module_keeps_it():
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(3, 5))
    model.again = model.weight
    model.register_buffer("table", torch.zeros(7, dtype=torch.int8))
    model.packed = Record(torch.zeros(11, dtype=torch.uint8), torch.zeros(2))
    model.inner = nn.Module()
    model.inner.other = Other(torch.zeros(4, dtype=torch.bfloat16), "x")
    assert work.weight_bytes(model) == 60 + 7 + 11 + 8 + 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_reads_every_weight_but_an_embedding_that_is_no_head(dtype):
    hawk = make_model(HAWK, dtype=dtype)
    assert work.decode_bytes(hawk) == sum(p.nbytes for p in hawk.parameters())
    griffin = make_model(GRIFFIN, dtype=dtype)
    row = GRIFFIN.width * dtype.itemsize
    expected = sum(p.nbytes for p in griffin.parameters()) - (GRIFFIN.vocab_size - 1) * row
    assert work.decode_bytes(griffin) == expected


@pytest.mark.parametrize("context", [0, 3, 16, 500])
def test_state_bytes_are_what_a_step_can_see_and_change(context):
    """Poison what a step after `context` tokens sees; what is finite afterwards was not touched."""
    model = make_model(GRIFFIN)
    _, state = (
        model.trunk(make_tokens(GRIFFIN, 2, context))
        if context
        else (None, State.zeros(GRIFFIN, 2))
    )
    touched = 0
    for layer in state.layers:
        if "lru" in layer._fields:
            touched += 2 * sum(t[0].nbytes for t in layer)
        else:
            slots = min(context, GRIFFIN.attention_window_size)
            touched += sum((slots + 1) * t[0, 0].nbytes for t in layer)
    assert work.state_bytes(state, context) == touched


@pytest.mark.parametrize("config", [GRIFFIN, HAWK, GriffinConfig.preset("nano")])
def test_operations_are_two_for_each_weight_that_is_multiplied(config):
    with torch.device("meta"):
        model = type(make_model(HAWK))(config)
    count = sum(
        p.numel()
        for name, p in model.named_parameters()
        if p.dim() > 1
        and "conv_1d" not in name
        and "embed_tokens" not in name
        and "bias" not in name
    )
    count += config.vocab_size * config.width if config.tie_embeddings else 0
    layers = config.block_types.count("attention")
    scores_and_sums = 4 * config.width * layers
    assert work.operations(config, 0) == 2 * count + scores_and_sums
    far = config.attention_window_size + 1
    assert work.operations(config, 10**6) == 2 * count + scores_and_sums * far
    assert work.operations(config, 0, head=False) == work.operations(
        config, 0
    ) - 2 * config.vocab_size * (config.width)


@pytest.mark.parametrize("start", [0, 1, 15, 40])
@pytest.mark.parametrize("length", [1, 2, 16, 17, 90])
def test_a_prompt_costs_the_sum_of_its_tokens_and_one_head(length, start):
    each = sum(work.operations(GRIFFIN, t, head=False) for t in range(start, start + length))
    expected = (each + 2 * GRIFFIN.vocab_size * GRIFFIN.width) / length
    assert work.prefill_operations(GRIFFIN, length, start) == pytest.approx(expected)


@pytest.mark.parametrize("config", [GRIFFIN, HAWK])
def test_matrix_shapes_are_those_of_the_linear_layers(config):
    found: dict[tuple[int, int], int] = {}
    for name, module in make_model(config).named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            shape = (module.out_features, module.in_features)
            found[shape] = found.get(shape, 0) + 1
    assert {(out, inputs): count for out, inputs, count in work.matrix_shapes(config)} == found


def test_the_2b_shape_costs_what_the_targets_say():
    config = GriffinConfig.preset("recurrentgemma-2b")
    assert work.prefill_operations(config, 2048) == pytest.approx(4.1e9, rel=0.03)
    state = State.zeros(config, dtype=torch.bfloat16, device="meta")
    assert state.nbytes == 17_238_016
    assert work.state_bytes(state, 10**6) < 1.1 * state.nbytes
