"""Our logits beside those of recurrentgemma (torch and Flax) and transformers, random weights, toy
shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from griffin.model import GriffinConfig
from tests.support.rivals import (
    TOY,
    official_flax_logits,
    official_steps,
    official_torch,
    transformers_steps,
)
from tests.support.toy_models import make_model, make_tokens

W = TOY.attention_window_size
STEPS = 50
CONFIGS = {
    "toy": TOY,
    "plain": TOY.replace(scale_embeddings=False, logits_soft_cap=0.0, lru_width=64),
    "hawk": TOY.replace(block_types=["recurrent"] * 3),
}


def ours_steps(model: torch.nn.Module, prompt: Tensor, rest: Tensor) -> list[Tensor]:
    logits, state = model(prompt)
    out = [logits]
    for token in rest.split(1, dim=1):
        logits, state = model(token, state)
        out.append(logits)
    return out


def assert_near(ours: Tensor, theirs: Tensor) -> None:
    worst = (ours - theirs).abs().max().item() / theirs.std().item()
    assert worst <= 1e-4, f"logits differ by {worst:.2e} of their standard deviation"


@pytest.mark.sweep
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("length", [1, 5, W, 3 * W + 1])
def test_official_torch(name: str, length: int, tmp_path: Path) -> None:
    model = make_model(CONFIGS[name])
    tokens = make_tokens(model.config, 2, length + STEPS)
    prompt, rest = tokens[:, :length], tokens[:, length:]
    ours = torch.cat(ours_steps(model, prompt, rest), dim=1)
    theirs = torch.cat(list(official_steps(official_torch(model, tmp_path), prompt, rest)), dim=1)
    assert_near(ours, theirs)


@pytest.mark.sweep
@pytest.mark.parametrize("name", CONFIGS)
def test_official_torch_packed(name: str, tmp_path: Path) -> None:
    """Packed documents, and going on after them."""
    model = make_model(CONFIGS[name])
    tokens = make_tokens(model.config, 2, 2 * W + 9)
    positions = torch.cat([torch.arange(W + 4), torch.arange(W + 5)]).expand_as(tokens)
    theirs = official_torch(model, tmp_path)
    expected, cache = theirs(tokens, positions, None)
    actual, state = model(tokens, None, positions)
    assert_near(actual, expected)
    token = tokens[:, :1]
    expected, _ = theirs(token, torch.full_like(token, W + 5), cache)
    actual, _ = model(token, state)
    assert_near(actual, expected)


@pytest.mark.sweep
@pytest.mark.thorough
@pytest.mark.parametrize("length", [5, 3 * W + 1])
def test_official_flax(length: int, tmp_path: Path) -> None:
    model = make_model(TOY)
    tokens = make_tokens(TOY, 2, length)
    assert_near(model(tokens)[0], official_flax_logits(model, tmp_path, tokens))


@pytest.mark.sweep
@pytest.mark.thorough
@pytest.mark.parametrize("length", [2, W - 1])
def test_transformers(length: int, tmp_path: Path) -> None:
    """transformers shows each query one key fewer than the released weights were trained with, so
    it is an oracle only while everything fits its window; and its conv state assumes lru_width =
    width."""
    config = TOY.replace(
        lru_width=64,
        attention_window_size=80,
        rms_norm_eps=1e-5,
        rope_theta=500.0,
        rope_fraction=0.25,
        num_kv_heads=2,
        attention_bias=True,
    )
    model = make_model(config)
    tokens = make_tokens(config, 2, length + STEPS)
    prompt, rest = tokens[:, :length], tokens[:, length:]
    ours = torch.cat(ours_steps(model, prompt, rest), dim=1)
    theirs = torch.cat(list(transformers_steps(model, tmp_path, prompt, rest)), dim=1)
    assert_near(ours, theirs)


def released_like(width: int, window: int) -> GriffinConfig:
    return GriffinConfig.preset("recurrentgemma-2b").replace(
        vocab_size=256,
        width=width,
        mlp_width=3 * width,
        lru_width=width,
        num_heads=max(1, width // 64) if width < 2560 else 10,
        num_gate_blocks=max(1, width // 64) if width < 2560 else 10,
        block_types=["recurrent", "recurrent", "attention"],
        attention_window_size=window,
    )


def bfloat16_errors(config: GriffinConfig, tokens: Tensor, folder: Path) -> tuple[float, float]:
    """Root-mean-square error of bfloat16 logits against our float64, ours and the official torch
    code's."""
    from griffin.model import Griffin
    from griffin.model.init import init_weights

    rounded = Griffin(config)
    init_weights(rounded, config, torch.Generator().manual_seed(0))
    rounded = rounded.to(torch.bfloat16).requires_grad_(False)
    truth = Griffin(config).to(torch.float64).requires_grad_(False)
    truth.load_state_dict(rounded.state_dict())
    expected = truth(tokens)[0]
    ours = rounded(tokens)[0].double()
    theirs = next(
        official_steps(official_torch(rounded, folder, torch.bfloat16), tokens, tokens[:, :0])
    )
    scale = expected.square().mean().sqrt()
    return tuple(
        ((x.double() - expected).square().mean().sqrt() / scale).item() for x in (ours, theirs)
    )


def test_bfloat16_toy(tmp_path: Path) -> None:
    """In bfloat16 we are at least as near to the float64 truth as the official code."""
    config = released_like(128, 16)
    ours, theirs = bfloat16_errors(config, make_tokens(config, 2, 64), tmp_path)
    assert ours <= theirs, f"relative error: ours {ours:.4f}, official {theirs:.4f}"


@pytest.mark.slow
def test_bfloat16_full_width(tmp_path: Path) -> None:
    """The same at the width of 2B, three blocks."""
    config = released_like(2560, 64)
    ours, theirs = bfloat16_errors(config, make_tokens(config, 1, 160), tmp_path)
    print(f"\nrelative error at width 2560: ours {ours:.5f}, official {theirs:.5f}")
    assert ours <= theirs, f"relative error: ours {ours:.4f}, official {theirs:.4f}"
