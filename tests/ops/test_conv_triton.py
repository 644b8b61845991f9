"""The convolution's Triton kernel, in the interpreter, against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from griffin import ops
from griffin.ops.launching import record
from tests.ops.test_twins import draw, positions
from tests.support.triton import TOLERANCE, error, interpreted, poisoned

__all__ = ["interpreted", "poisoned"]
pytestmark = pytest.mark.usefixtures("interpreted", "poisoned")


@torch.no_grad()
def check(steps: int, taps: int, dtype: torch.dtype, width: int = 20) -> None:
    """Documents begin everywhere; the last row begins with pads, or is nothing else."""
    position = positions(3, steps, pads=True)
    position[1] = -1
    x, cache = (
        draw(3, steps, width, dtype=dtype, seed=0),
        draw(3, taps - 1, width, dtype=dtype, seed=3),
    )
    weight, bias = draw(width, 1, taps, dtype=dtype, seed=1), draw(width, dtype=dtype, seed=2)
    with ops.use("triton"), record() as launches:
        got = ops.causal_conv(x, weight, bias, position, cache)
    with ops.use("reference"):
        want = ops.causal_conv(x.double(), weight.double(), bias.double(), position, cache.double())
    assert error(got[0], want[0]) <= TOLERANCE[dtype]
    assert torch.equal(got[1].double(), want[1])
    assert [each.name for each in launches] == ["_convolve"]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 37])
def test_values_and_what_is_left(steps, dtype):
    check(steps, 4, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("taps", [1, 2, 3, 6])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 31, 32, 33, 200])
def test_many_values(steps, taps, dtype):
    check(steps, taps, dtype, width=70)


def test_gradients_are_those_of_torch():
    inputs = [
        draw(1, 3, 6, dtype=torch.float32, seed=0),
        draw(6, 1, 4, dtype=torch.float32, seed=1),
    ]
    bias = draw(6, dtype=torch.float32, seed=2)
    found = []
    for name in ("triton", "eager"):
        with ops.use(name):
            y, left = ops.causal_conv(inputs[0], inputs[1], bias, torch.arange(3)[None])
        found.append(torch.autograd.grad(y.sum() + left.sum(), [*inputs, bias]))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
