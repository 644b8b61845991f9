"""The RG-LRU's Triton kernels, in the interpreter, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from griffin import ops
from griffin.ops.launching import record
from griffin.ops.linear_scan.chunks import CHUNK
from griffin.ops.rg_lru import Gate
from griffin.ops.rg_lru.triton import with_carries
from tests.ops.test_twins import draw, positions
from tests.support.triton import TOLERANCE, error, interpreted, poisoned

__all__ = ["interpreted", "poisoned"]
pytestmark = pytest.mark.usefixtures("interpreted")
Shape = tuple[int, int, int, int]  # rows, steps, gate blocks, their size


class Unit:
    """Operands of a call."""

    def __init__(self, shape: Shape, dtype: torch.dtype, *, rate: float = 3.0) -> None:
        rows, steps, blocks, size = shape
        width = blocks * size
        gates = [(blocks, size, size), (blocks, size)] * 2
        self.inputs = [draw(rows, steps, width, dtype=dtype, seed=0)]
        self.inputs += [draw(*each, dtype=dtype, seed=n) for n, each in enumerate(gates, 1)]
        self.inputs.append((draw(width, dtype=dtype, seed=5) - rate).detach())
        self.inputs.append(draw(rows, width, dtype=torch.float32, seed=6))
        self.inputs = [t.detach() for t in self.inputs]
        for n in (1, 3):
            self.inputs[n] *= size**-0.5
        self.position = positions(rows, steps, pads=True)

    def values(self, implementation: str, inputs: list[Tensor] | None = None) -> list[Tensor]:
        x, wi, bi, wr, br, param, h0 = inputs or self.inputs
        with ops.use(implementation):
            return list(
                ops.rg_lru(x, Gate(wi, bi), Gate(wr, br), param, self.position[:, : x.shape[1]], h0)
            )

    def results(self, implementation: str) -> list[Tensor]:
        """Values and the gradients of everything that has one; as reference, in float64."""
        wide = torch.float64 if implementation == "reference" else None
        inputs = [t.to(wide or t.dtype, copy=True).requires_grad_() for t in self.inputs]
        h, last = self.values(implementation, inputs)
        # As the kernels get them: rounded for one side alone, they would be two gradients.
        types = self.inputs[0].dtype, torch.float32
        seeds = [
            draw(*t.shape, dtype=dtype, seed=9).detach().to(t.dtype)
            for t, dtype in zip((h, last), types, strict=True)
        ]
        return [h.detach(), last.detach(), *torch.autograd.grad([h, last], inputs, seeds)]


def check(shape: Shape, dtype: torch.dtype, rate: float = 3.0) -> None:
    unit = Unit(shape, dtype, rate=rate)
    mine, truth = (unit.results(each) for each in ("triton", "reference"))
    if shape[2:] == (1, 1):
        # A gradient of one number is a sum over all tokens. Where its terms cancel there is nothing
        # left to measure an error by, so those of all weights are measured as one.
        mine, truth = (
            [*of[:3], torch.cat([t.flatten() for t in of[3:8]]), of[8]] for of in (mine, truth)
        )
    for one, other in zip(mine, truth, strict=True):
        assert error(one, other) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.usefixtures("poisoned")
def test_values_and_gradients(dtype):
    """Across a chunk's end; documents begin, and the last row begins with pads."""
    check((2, 70, 2, 20), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("rate", [3.0, 14.0], ids=["", "near_one"])
@pytest.mark.parametrize("steps", [1, 2, 63, 64, 65, 129, 200])
@pytest.mark.parametrize("gates", [(1, 1), (9, 1), (3, 17), (2, 80)], ids=str)
@pytest.mark.usefixtures("poisoned")
def test_many_values_and_gradients(steps, gates, rate, dtype):
    check((2, steps, *gates), dtype, rate)


@pytest.mark.usefixtures("poisoned")
def test_values_without_gradients_have_the_same_bits():
    unit = Unit((1, 3, 1, 5), torch.float32)
    with torch.no_grad():
        plain = unit.values("triton")
    for mine, other in zip(plain, unit.results("triton"), strict=False):
        assert torch.equal(mine, other)


@torch.no_grad()
def test_cuts_and_company_change_no_bit():
    """A sequence that is cut where a chunk ends, or stands among others, has the bits it had."""
    unit = Unit((2, CHUNK + 9, 1, 20), torch.float32)
    x, *weights, h0 = unit.inputs
    unit.position = torch.arange(5, 5 + x.shape[1]).repeat(2, 1)
    h, last = unit.values("triton")
    wi, bi, wr, br, param = weights
    found = with_carries(x, Gate(wi, bi), Gate(wr, br), param, unit.position, h0)
    unit.position = unit.position[1:]
    first, carry = unit.values("triton", [x[1:, :CHUNK], *weights, h0[1:]])
    unit.position = unit.position[:, CHUNK:]
    second, end = unit.values("triton", [x[1:, CHUNK:], *weights, carry])
    assert torch.equal(torch.cat([first, second], 1), h[1:]) and torch.equal(end, last[1:])
    assert torch.equal(found[2][:, 0], h0) and torch.equal(found[2][1:, 1], carry)


@torch.no_grad()
def test_states_on_the_way_are_those_of_calls_that_end_there():
    unit = Unit((1, CHUNK + 20, 1, 20), torch.float32)
    x, wi, bi, wr, br, param, h0 = unit.inputs
    at = [7, CHUNK, CHUNK + 3, CHUNK + 20]
    with ops.use("triton"), record() as launches:
        h, last, held = ops.rg_lru_at(x, Gate(wi, bi), Gate(wr, br), param, unit.position, h0, at)
    assert len(launches) == 9  # what lies on a chunk's end costs none
    whole, end = unit.values("triton")
    assert torch.equal(h, whole) and torch.equal(last, end)
    for number, steps in enumerate(at):
        _, there = unit.values("triton", [x[:, :steps], *unit.inputs[1:]])
        assert torch.equal(held[:, number], there)


def test_the_gradient_of_the_root_is_clipped():
    """At a = 1 the true one is infinite; it stops at 1,000 (tests/ops/test_twins.py)."""
    gate = Gate(torch.zeros(1, 1, 1), torch.zeros(1, 1))
    param = torch.tensor([-60.0], requires_grad=True)
    with ops.use("triton"):
        h, _ = ops.rg_lru(torch.ones(1, 2, 1), gate, gate, param, torch.tensor([[5, 6]]))
    (grad,) = torch.autograd.grad(h[0, 0, 0], param)
    expected = 0.5 * 1000 * 2 * 4 * torch.sigmoid(param.detach())
    torch.testing.assert_close(grad, expected, rtol=1e-5, atol=0)


@torch.no_grad()
def test_a_number_that_is_none_stays_in_its_row():
    unit = Unit((2, 3, 1, 5), torch.float32)
    unit.inputs[0][0, 1, 2] = float("nan")
    unit.position = torch.arange(1, 4).repeat(2, 1)
    h, last = unit.values("triton")
    assert h[0, 1:].isnan().all() and last[0].isnan().all()
    assert not h[1].isnan().any() and not last[1].isnan().any() and not h[0, 0].isnan().any()


@torch.no_grad()
def test_weights_of_a_wider_type_are_not_rounded():
    unit = Unit((1, 2, 1, 5), torch.bfloat16)
    unit.inputs[1:5] = [t.float() + 1e-4 for t in unit.inputs[1:5]]
    for mine, other in zip(unit.values("triton"), unit.values("eager"), strict=True):
        assert error(mine, other) <= 1e-2
        assert mine.dtype == other.dtype
