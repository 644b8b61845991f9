"""The linear scan's Triton kernels, in the interpreter, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from griffin import ops
from griffin.ops.linear_scan.chunks import CHUNK
from tests.ops.test_twins import draw
from tests.support.triton import TOLERANCE, error, interpreted, poisoned

__all__ = ["interpreted", "poisoned"]
pytestmark = pytest.mark.usefixtures("interpreted")


def operands(rows: int, steps: int, width: int, dtype: torch.dtype) -> list[Tensor]:
    x = draw(rows, steps, width, dtype=dtype, seed=0)
    a = torch.sigmoid(2 + draw(rows, steps, width, dtype=dtype, seed=1)).detach()
    a[:, steps // 2] = 0
    h0 = draw(rows, width, dtype=torch.float32, seed=2)
    return [x, a.requires_grad_(), h0]


def results(implementation: str, inputs: list[Tensor]) -> list[Tensor]:
    """Values, and the gradients of x, a and h0."""
    with ops.use(implementation):
        h, last = ops.linear_scan(*inputs)
    seeds = [draw(*t.shape, dtype=torch.float64, seed=9).to(t.dtype) for t in (h, last)]
    return [h.detach(), last.detach(), *torch.autograd.grad([h, last], inputs, seeds)]


SHORT = [(2, 1, 5), (2, 70, 33)]  # rows, steps, width


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHORT, ids=str)
@pytest.mark.usefixtures("poisoned")
def test_values_and_gradients(shape, dtype):
    check(shape, dtype)


def check(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    inputs = operands(*shape, dtype)
    got = results("triton", inputs)
    wide = [t.detach().double().requires_grad_() for t in inputs]
    for mine, truth in zip(got, results("reference", wide), strict=True):
        assert error(mine, truth) <= TOLERANCE[dtype]
    assert [t.dtype for t in got] == [dtype, torch.float32, dtype, dtype, torch.float32]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 63, 64, 65, 128, 129, 200])
@pytest.mark.parametrize("width", [1, 64, 100])
@pytest.mark.usefixtures("poisoned")
def test_many_values_and_gradients(steps, width, dtype):
    check((2, steps, width), dtype)


def test_cuts_and_company_change_no_bit():
    """A sequence that is cut where a chunk ends, or stands among others, has the bits it had."""
    x, a, h0 = (t.detach() for t in operands(3, CHUNK + 9, 20, torch.float32))
    with ops.use("triton"):
        h, last = ops.linear_scan(x, a, h0)
        first, carry = ops.linear_scan(x[1:2, :CHUNK], a[1:2, :CHUNK], h0[1:2])
        second, end = ops.linear_scan(x[1:2, CHUNK:], a[1:2, CHUNK:], carry)
    assert torch.equal(torch.cat([first, second], 1), h[1:2]) and torch.equal(end, last[1:2])
