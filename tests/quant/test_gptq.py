"""Rounding with sample inputs against rounding without."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from griffin.ops import unpack
from griffin.quant import FORMATS, calibrate, get_format, gptq, quantize_model
from griffin.quant.gptq import inverse_factor
from tests.support.toy_models import GRIFFIN, HAWK, make_model, make_tokens


def correlated(rows: int, inputs: int, seed: int = 0) -> Tensor:
    """Return inputs that say much the same thing several times over, as hidden states do."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(rows, inputs // 8, generator=generator)
    mixing = torch.randn(inputs // 8, inputs, generator=generator)
    return few @ mixing + 0.3 * torch.randn(rows, inputs, generator=generator)


def cost(found: Tensor, weight: Tensor, gram: Tensor) -> float:
    change = found - weight
    return float(((change @ gram) * change).sum())


@pytest.mark.parametrize("shape", [(40, 64), (30, 300), (17, 72)])
@pytest.mark.parametrize("format", ["int8", "int4"])
def test_the_product_changes_less(format: str, shape: tuple[int, int]) -> None:
    x = correlated(4000, shape[1])
    gram = x.T @ x / len(x)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2)) * 0.05
    chosen = get_format(format)
    with_sample = cost(unpack(gptq(weight, gram, chosen)), weight, gram)
    assert with_sample < 0.6 * cost(unpack(chosen.quantize(weight)), weight, gram)


@pytest.mark.thorough
def test_nearly_the_best_there_is() -> None:
    """On three inputs every rounding can be tried: the greedy one is among the best."""
    grid = get_format("int4").grid
    assert grid is not None
    x = correlated(500, 24, seed=3)[:, :3]
    gram = x.T @ x / len(x)
    for seed in range(10):
        weight = torch.randn(1, 3, generator=torch.Generator().manual_seed(seed))
        packed = gptq(weight, gram, get_format("int4"), damping=1e-6)
        found = unpack(packed)
        scale = float(packed.data[0, 512:544].clone().view(torch.float16)[0])
        every = torch.tensor(list(itertools.product(range(-8, 8), repeat=3))) * scale
        costs = sorted(cost(one[None], weight, gram) for one in every)
        assert costs.index(min(costs, key=lambda c: abs(c - cost(found, weight, gram)))) < 12


def test_the_factor() -> None:
    x = correlated(300, 40)
    gram = x.T @ x / 300
    factor = inverse_factor(gram, 0.05).double()
    damped = gram.double() + 0.05 * gram.double().diagonal().mean() * torch.eye(40)
    assert torch.allclose(factor.T @ factor @ damped, torch.eye(40).double(), atol=1e-4)
    assert torch.equal(factor, factor.triu())


def test_dead_inputs_and_few_rows_do_no_harm() -> None:
    weight = torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
    x = torch.zeros(3, 64)
    x[:, :5] = 1.0
    found = unpack(gptq(weight, x.T @ x / 3, get_format("int4")))
    assert torch.isfinite(found).all() and (found - weight).norm() < 0.2 * weight.norm()
    assert torch.isfinite(unpack(gptq(weight, torch.zeros(64, 64), get_format("int4")))).all()


def test_refusals() -> None:
    weight, gram = torch.zeros(4, 8), torch.eye(8)
    with pytest.raises(ValueError, match="bf16 has nothing to calibrate"):
        gptq(weight, gram, FORMATS["bf16"])
    with pytest.raises(ValueError, match=r"gram must be finite \(8, 8\)"):
        gptq(weight, torch.eye(9), FORMATS["int4"])
    with pytest.raises(ValueError, match="gram must be finite"):
        gptq(weight, gram * float("nan"), FORMATS["int4"])


@pytest.mark.sweep
@pytest.mark.parametrize("shape", [GRIFFIN, HAWK], ids=["griffin", "hawk"])
def test_a_calibrated_model_is_nearer(shape) -> None:
    model = make_model(shape)
    # A sample that repeats itself, so that what is measured is like what was seen.
    sample = make_tokens(shape, 1, 40, seed=5)[:, torch.arange(200) % 40].repeat(4, 1)
    with torch.no_grad():
        truth, _ = model.trunk(sample[:1])
        plain, _ = quantize_model(make_model(shape), "int4").trunk(sample[:1])
        seen: list[tuple[int, int]] = []
        found, _ = calibrate(
            make_model(shape), sample, "int4", lambda *step: seen.append(step)
        ).trunk(sample[:1])
    assert (found - truth).norm() < 0.8 * (plain - truth).norm()
    assert seen[-1] == (shape.num_layers + 1,) * 2 and len(seen) == shape.num_layers + 1


def test_what_calibrate_refuses() -> None:
    model = make_model(HAWK)
    with pytest.raises(ValueError, match=r"tokens must be \(R, T\)"):
        calibrate(model, torch.zeros(3, dtype=torch.int64), "int4")
    with pytest.raises(ValueError, match="outside the vocabulary of 89"):
        calibrate(model, torch.full((1, 300), 89), "int4")
    with pytest.raises(ValueError, match="bf16 has nothing to calibrate"):
        calibrate(model, torch.zeros(1, 300, dtype=torch.int64), "bf16")
    quantize_model(model, "int8")
    with pytest.raises(ValueError, match="int8 already"):
        calibrate(model, torch.zeros(1, 300, dtype=torch.int64), "int4")
