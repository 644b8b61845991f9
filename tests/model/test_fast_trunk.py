"""The trunk in one native call gives what the ops give one by one, and knows when it may not be
used."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from griffin import ops
from griffin.model import Griffin, State
from griffin.model.fast_trunk import build
from griffin.ops import native
from griffin.quant import FORMATS, quantize_model
from tests.support.toy_folder import CONFIG
from tests.support.toy_models import make_model, make_tokens

pytestmark = pytest.mark.skipif(not native.built(), reason="the native kernels are not built")
# Heads of 32, which bfloat16 models lay out in pairs; groups of two; a window that is no multiple
# of a block.
PAIRS = CONFIG.replace(width=128, lru_width=128, num_kv_heads=2, attention_window_size=150)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def packed(format: str, dtype: torch.dtype, **changes: object) -> Griffin:
    return quantize_model(make_model(PAIRS.replace(**changes)).to(dtype), format)  # pyright: ignore


def tensors(state: State) -> list[Tensor]:
    return [state.pos, *(t for layer in state.layers for t in layer)]


@pytest.mark.sweep
@pytest.mark.parametrize("chosen", native.instruction_sets())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("format", FORMATS)
def test_it_equals_the_ops(format: str, dtype: torch.dtype, chosen: str) -> None:
    model = packed(format, dtype)
    tokens = make_tokens(model.config, 3, 230)
    with native.instruction_set(chosen):
        with ops.use("native"):
            want, end = model(tokens)
        got, last = model(tokens[:, :170])
        assert build(model) is not None
        assert torch.equal(got, want[:, :170])
        for step in range(170, 175):
            logits, last = model(tokens[:, step : step + 1], last, donate=True)
            assert torch.equal(logits, want[:, step : step + 1])
        got, last = model(tokens[:, 175:], last, donate=True)
        assert torch.equal(got, want[:, 175:])
        assert all(map(torch.equal, tensors(last), tensors(end)))


def test_it_equals_the_ops_without_one_kind_of_block() -> None:
    for kind in ("recurrent", "attention"):
        model = packed("int8", torch.float32, block_types=(kind,) * 2)
        tokens = make_tokens(model.config, 2, 40)
        with ops.use("native"):
            want, _ = model(tokens)
        assert torch.equal(model(tokens)[0], want)
        assert model._fast is not None


def test_a_state_is_changed_only_if_it_is_given_up() -> None:
    model = packed("int8", torch.bfloat16)
    _, state = model(make_tokens(model.config, 2, 200))
    before = state.clone()
    step = make_tokens(model.config, 2, 1)
    kept, after = model(step, state)
    assert all(map(torch.equal, tensors(state), tensors(before)))
    places = [t.data_ptr() for t in tensors(state)[1:]]
    given, last = model(step, state, donate=True)
    assert [t.data_ptr() for t in tensors(last)[1:]] == places
    assert torch.equal(kept, given)
    assert all(map(torch.equal, tensors(after), tensors(last)))
    with pytest.raises(RuntimeError, match="donated"):
        model(step, state)


def test_a_view_of_rows_is_changed_in_place() -> None:
    """What the engine does: the first rows of a larger state go on."""
    model = packed("bf16", torch.float32)
    _, state = model(make_tokens(model.config, 4, 20))
    step = make_tokens(model.config, 2, 1)
    want, _ = model(step, state.select([0, 1]))
    others = state.select([2, 3])
    got, _ = model(step, state.map(lambda t: t[:2]), donate=True)
    assert torch.equal(got, want)
    assert all(map(torch.equal, tensors(state.select([2, 3]))[1:], tensors(others)[1:]))


def test_whoever_changes_or_watches_the_model_is_heard() -> None:
    model = packed("int8", torch.float32)
    tokens = make_tokens(model.config, 1, 5)
    before, _ = model(tokens)
    mlp: Any = model.model.layers[0].mlp_block
    seen: list[str] = []
    handle = mlp.down_proj.register_forward_hook(lambda *_: seen.append("down"))
    model(tokens)
    assert seen == ["down"]
    handle.remove()
    old, mlp.down_proj = (
        mlp.down_proj,
        torch.nn.Sequential(mlp.down_proj, torch.nn.Hardtanh(-0.01, 0.01)),
    )
    assert not torch.equal(model(tokens)[0], before)
    mlp.down_proj = old
    model.model.final_norm.weight = torch.nn.Parameter(model.model.final_norm.weight + 1)
    assert not torch.equal(model(tokens)[0], before)
    assert model.to(torch.bfloat16)(tokens)[1].layers[0][0].dtype == torch.bfloat16


def test_an_unpacked_or_mixed_model_goes_through_the_ops() -> None:
    model = make_model(PAIRS)
    assert build(model) is None
    model = packed("int8", torch.bfloat16)
    model.model.layers[0].channel_pre_norm.float()
    assert build(model) is None


def test_control_c_ends_a_long_reading_between_two_layers() -> None:
    model = packed("int8", torch.float32, block_types=("recurrent",) * 40)
    tokens = make_tokens(model.config, 1, 3_000)
    begin, spent = time.perf_counter(), time.process_time()
    model.trunk(tokens)
    whole, spent = time.perf_counter() - begin, time.process_time() - spent
    # As a terminal does. Of this process's own time it then takes a small part of the whole.
    threading.Timer(whole / 20, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    begin = time.process_time()
    with pytest.raises(KeyboardInterrupt):
        while True:
            model.trunk(tokens)
    assert time.process_time() - begin < 0.75 * spent
    model.trunk(tokens[:, :5])
