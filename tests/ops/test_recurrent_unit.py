"""The recurrent unit as training calls it: values and gradients, what it keeps, equal bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from griffin import ops
from griffin.ops import native
from griffin.ops.rg_lru import Gate
from tests.ops.test_twins import TOLERANCE, check, collect, draw, here, positions

TAPS = 4


class Unit:
    """Operands of a call, and what comes of it."""

    def __init__(
        self,
        rows: int,
        steps: int,
        blocks: int = 3,
        size: int = 4,
        *,
        dtype: torch.dtype = torch.float64,
        taps: int = TAPS,
        state: bool = True,
        strided: bool = False,
    ) -> None:
        width, wide = blocks * size, torch.promote_types(dtype, torch.float32)
        self.blocks, self.size = blocks, size
        self.x = draw(rows, steps, width, dtype=dtype, seed=0, strided=strided)
        self.conv = [draw(width, 1, taps, dtype=dtype, seed=1), draw(width, dtype=dtype, seed=2)]
        scale = size**-0.5
        self.gates = [
            (draw(blocks, *shape, dtype=dtype, seed=seed) * scale).detach().requires_grad_()
            for seed, shape in ((3, (size, size)), (4, (size,)), (5, (size, size)), (6, (size,)))
        ]
        self.param = (draw(width, dtype=dtype, seed=7) - 2).detach().requires_grad_()
        self.pos = positions(rows, steps, pads=True)
        self.cache = draw(rows, taps - 1, width, dtype=dtype, seed=8) if state else None
        self.h0 = draw(rows, width, dtype=wide, seed=9) if state else None

    def leaves(self) -> list[Tensor]:
        """Everything that has a gradient."""
        state = [t for t in (self.cache, self.h0) if t is not None and t.numel()]
        return [self.x, *self.conv, *self.gates, self.param, *state]

    def operands(self) -> tuple[Any, ...]:
        """Of `recurrent_carry`."""
        gates = Gate(*self.gates[:2]), Gate(*self.gates[2:])
        return self.x, *self.conv, *gates, self.param, self.pos, self.cache

    def __call__(self) -> list[Tensor]:
        h, left, last = ops.recurrent_unit(*self.operands(), h0=self.h0)
        return [h, left, last] if left.numel() else [h, last]


@pytest.mark.sweep
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 3, 63, 64, 65, 500, 1000])
@pytest.mark.parametrize("shape", [(3, 4), (2, 34), (1, 70)])
def test_twins(steps: int, shape: tuple[int, int], dtype: torch.dtype) -> None:
    unit = Unit(2, steps, *shape, dtype=dtype, strided=True)
    check("recurrent_unit", lambda: collect(unit(), unit.leaves()), dtype)


@pytest.mark.sweep
@pytest.mark.parametrize("taps", [1, 2, 16])
@pytest.mark.parametrize("steps", [1, 5, 130])
def test_twins_of_other_taps_and_without_a_state(steps: int, taps: int) -> None:
    unit = Unit(3, steps, taps=taps, state=taps > 2)
    check("recurrent_unit", lambda: collect(unit(), unit.leaves()), torch.float64)


@pytest.mark.sweep
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("steps", [1, 70, 200])
def test_twins_of_a_carry(steps: int, dtype: torch.dtype) -> None:
    unit = Unit(3, steps, dtype=dtype)
    unit.pos[0] = torch.arange(5, 5 + steps)  # no document starts here
    leaves = [t for t in unit.leaves() if t is not unit.h0 and t is not unit.gates[1]]
    leaves += [unit.gates[1]] if dtype != torch.bfloat16 else []
    check(
        "recurrent_unit",
        lambda: collect(list(ops.recurrent_carry(*unit.operands())), leaves),
        dtype,
    )


def test_a_carry_takes_h0_to_the_last_h() -> None:
    unit = Unit(3, 40)
    assert unit.h0 is not None
    unit.pos[0] = torch.arange(5, 45)
    decay, end = ops.recurrent_carry(*unit.operands())
    torch.testing.assert_close(decay * unit.h0 + end, unit()[2], rtol=1e-12, atol=1e-12)
    assert decay[0].min() > 0
    assert not decay[1].any()  # a document starts


def test_gradcheck() -> None:
    for steps, pads in ((1, False), (19, True)):
        unit = Unit(2, steps, 2, 2)
        unit.pos = positions(2, steps, pads=pads)
        leaves = unit.leaves()

        def run(*args: Tensor, unit: Unit = unit) -> Any:
            x, cw, cb, wi, bi, wr, br, p, cache, h0 = args
            return ops.recurrent_unit(x, cw, cb, Gate(wi, bi), Gate(wr, br), p, unit.pos, cache, h0)

        for name in here("recurrent_unit"):
            with ops.use(name):
                assert torch.autograd.gradcheck(run, leaves)


def test_without_gradients_it_has_the_bits_of_the_two_ops() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        unit = Unit(2, 30, dtype=dtype)
        x, weight, bias, one, other, param, pos, cache = unit.operands()
        with torch.no_grad():
            u, left = ops.causal_conv(x, weight, bias, pos, cache)
            h, last = ops.rg_lru(u, one, other, param, pos, unit.h0)
            got = ops.recurrent_unit(*unit.operands(), h0=unit.h0)
        for a, b in zip(got, (h, left, last), strict=True):
            assert torch.equal(a, b)


@pytest.mark.skipif(not native.built(), reason="the native kernels are not built")
def test_dispatch_takes_the_kernel() -> None:
    assert ops.describe()["recurrent_unit"] == "native"
