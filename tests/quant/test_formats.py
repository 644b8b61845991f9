"""Rounding to each format: how near it comes, and what it must leave alone."""

from __future__ import annotations

import pytest
import torch

from griffin.ops import unpack
from griffin.ops.packed_linear import round_int4
from griffin.quant import FORMATS, get_format
from griffin.quant.int4 import best_scales

SHAPES = [(1, 32), (16, 64), (33, 100), (50, 7)]


def weights(rows: int, inputs: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, inputs, generator=torch.Generator().manual_seed(seed)) * 0.05


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("format", "bound"), [("bf16", 0.0), ("int8", 0.01), ("int4", 0.1)])
def test_how_near(format: str, bound: float, shape: tuple[int, int]) -> None:
    weight = weights(*shape).to(torch.bfloat16).float()
    packed = get_format(format).quantize(weight)
    assert packed.format == format and (packed.out_features, packed.in_features) == shape
    assert error(unpack(packed), weight) <= bound


def test_no_weight_is_further_than_half_a_step_at_int8() -> None:
    weight = weights(40, 300)
    found = unpack(get_format("int8").quantize(weight))
    assert ((found - weight).abs() <= weight.abs().amax(1, keepdim=True) / 127 * 0.5001).all()


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_what_is_on_the_grid_stays(format: str) -> None:
    """Whole numbers of steps with a scale that both formats can store come back bit for bit."""
    generator = torch.Generator().manual_seed(1)
    most = {"int8": 127, "int4": 8}[format]
    weight = torch.randint(-most, most, (48, 96), generator=generator).float() * 2.0**-9
    weight[:, ::32] = -most * 2.0**-9  # every group reaches the end of the grid
    assert torch.equal(unpack(get_format(format).quantize(weight)), weight)


def test_the_search_beats_plain_rounding() -> None:
    weight = weights(64, 256)
    values, scale = round_int4(weight)
    plain = ((values.float() - 8).unflatten(1, (-1, 32)) * scale.float()[..., None]).flatten(1)
    assert error(unpack(get_format("int4").quantize(weight)), weight) < 0.97 * error(plain, weight)


def test_importance_moves_the_scale() -> None:
    weight = weights(32, 20)  # inputs first
    importance = torch.ones(32)
    importance[::2] = 1000.0
    scales, alike = best_scales(weight, importance), best_scales(weight)
    assert torch.equal(alike, best_scales(weight, torch.ones(32)))
    grid = FORMATS["int4"].grid
    assert grid is not None

    def weighted(scale: torch.Tensor) -> torch.Tensor:
        return ((grid.steps(weight, scale) * scale - weight).square() * importance[:, None]).sum(0)

    assert weighted(scales).mean() < 0.9 * weighted(alike).mean()


@pytest.mark.parametrize("format", FORMATS)
def test_zeros_and_extremes(format: str) -> None:
    weight = torch.zeros(17, 64)
    assert torch.equal(unpack(get_format(format).quantize(weight)), weight)
    weight[3, 5] = 1e-30  # below what half precision can store
    weight[4, 6] = 3e4
    found = unpack(get_format(format).quantize(weight))
    assert torch.isfinite(found).all()
    assert float(found[4, 6]) == pytest.approx(3e4, rel=4e-3)


def test_an_unknown_format() -> None:
    with pytest.raises(ValueError, match=r"no format 'int5'; there are int8 .*int4"):
        get_format("int5")
