"""The recurrent unit as training calls it: values and gradients, what it keeps, equal bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from griffin import ops
from griffin.ops import native
from griffin.ops.rg_lru import Gate
from tests.ops.test_twins import TOLERANCE, check, collect, draw, here, positions

TAPS = 4
needs_native = pytest.mark.skipif(not native.built(), reason="the native kernels are not built")


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


@pytest.mark.parametrize("name", here("recurrent_unit"))
def test_gradcheck(name: str) -> None:
    """The reference, whose loop is slow, over few tokens: a document starts among them, too."""
    for steps, pads in ((1, False), (7 if name == "reference" else 19, True)):
        unit = Unit(2, steps, 2, 2)
        unit.pos = positions(2, steps, pads=pads)
        leaves = unit.leaves()

        def run(*args: Tensor, unit: Unit = unit) -> Any:
            x, cw, cb, wi, bi, wr, br, p, cache, h0 = args
            return ops.recurrent_unit(x, cw, cb, Gate(wi, bi), Gate(wr, br), p, unit.pos, cache, h0)

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


@needs_native
def test_dispatch_takes_the_kernel() -> None:
    assert ops.describe()["recurrent_unit"] == "native"


def gradients(unit: Unit) -> list[Tensor]:
    """Every result and gradient."""
    results, grads = collect(unit(), unit.leaves())
    return results + grads


@needs_native
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_threads_do_not_change_a_bit(
    dtype: torch.dtype, with_threads: Callable[[int], None]
) -> None:
    unit = Unit(11, 140, 2, 48, dtype=dtype)
    with ops.use("native"):
        with_threads(1)
        one = gradients(unit)
        for count in (2, 3):
            with_threads(count)
            for a, b in zip(gradients(unit), one, strict=True):
                assert torch.equal(a, b)


@pytest.mark.sweep
@pytest.mark.parametrize("chosen", native.instruction_sets() or ["none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@needs_native
def test_every_instruction_set_gives_the_reference(dtype: torch.dtype, chosen: str) -> None:
    unit = Unit(2, 150, 2, 48, dtype=dtype)
    with native.instruction_set(chosen):
        check("recurrent_unit", lambda: collect(unit(), unit.leaves()), dtype)


@pytest.mark.sweep
@pytest.mark.parametrize("name", here("recurrent_unit"))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("border", [1, 127, 128, 129, 200])
def test_a_document_does_not_feel_the_one_before(
    name: str, dtype: torch.dtype, border: int
) -> None:
    """Not a bit of what is after the border, on which side of a kept h it may be."""
    outcomes = []
    for change in (0.0, 3.0):
        unit = Unit(1, 260, dtype=dtype)
        unit.pos = torch.cat([torch.arange(5, 5 + border), torch.arange(260 - border)])[None]
        with torch.no_grad():
            for t in (unit.x[:, :border], unit.cache, unit.h0):
                assert t is not None
                t += change
        with ops.use(name):
            h, left, last = ops.recurrent_unit(*unit.operands(), h0=unit.h0)
            weights = draw(1, 260, h.shape[2], dtype=dtype, seed=20).detach()
            (dx,) = torch.autograd.grad((h * weights).sum() + last.sum() + left.sum(), [unit.x])
        outcomes.append((h[:, border:], left, last, dx[:, border:]))
    for one, other in zip(*outcomes, strict=True):
        assert torch.equal(one, other)


@needs_native
def test_nothing_of_another_row_or_before_a_document_spoils_one() -> None:
    unit = Unit(3, 150, dtype=torch.float32)
    unit.pos = torch.arange(150).repeat(3, 1)
    with torch.no_grad():
        unit.x[1] = float("nan")
        for t in (unit.cache, unit.h0):
            assert t is not None
            t[:] = float("nan")  # documents start: nobody looks at it
    with ops.use("native"):
        h, left, last = ops.recurrent_unit(*unit.operands(), h0=unit.h0)
        out = [t[[0, 2]] for t in (h, left, last)]
        (dx,) = torch.autograd.grad(torch.cat([t.flatten() for t in out]).sum(), [unit.x])
    assert all(torch.isfinite(t).all() for t in (*out, dx[[0, 2]]))
    assert torch.isnan(h[1]).all()


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_keeps_its_inputs_and_one_h_every_so_many_tokens(dtype: torch.dtype) -> None:
    steps = 4 * native.KEPT_STEPS + 1
    unit = Unit(2, steps, dtype=dtype)
    kept: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        kept[t.data_ptr()] = t.nbytes
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        unit()
    wide = torch.promote_types(dtype, torch.float32).itemsize
    weights = sum(t.numel() for t in (*unit.conv, *unit.gates, unit.param)) * wide
    states = sum(t.nbytes for t in (unit.cache, unit.h0) if t is not None)
    states += 5 * 2 * unit.x.shape[2] * wide  # every 128th h, and the product of a
    assert sum(kept.values()) <= unit.x.nbytes + unit.pos.nbytes + weights + states


@needs_native
def test_autocast_gives_what_the_weights_give() -> None:
    """Gates of bfloat16 x are multiplied by weights rounded as autocast rounds them, and summed in
    float32: close to the reference, which rounds none."""
    unit = Unit(2, 200, 2, 64, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        x = unit.x.bfloat16()
        h, _, last = ops.recurrent_unit(x, *unit.operands()[1:], h0=unit.h0)
    assert (h.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    with ops.use("reference"):
        want, _, end = ops.recurrent_unit(x, *unit.operands()[1:], h0=unit.h0)
    for got, expected in ((h, want), (last, end)):
        worst = (got - expected).abs().max() / expected.abs().max()
        assert worst <= TOLERANCE[torch.bfloat16]
    grads = torch.autograd.grad(h.float().sum() + last.sum(), unit.leaves())
    wanted = torch.autograd.grad(want.float().sum() + end.sum(), unit.leaves())
    for got, expected in zip(grads, wanted, strict=True):
        assert got.dtype == expected.dtype
        error = (got - expected).float().norm() / expected.float().norm()
        assert error <= 2e-2


@pytest.mark.thorough
@needs_native
def test_a_row_of_65536_tokens() -> None:
    """Its end and the gradient at its beginning are those of the row in two halves."""
    unit = Unit(1, 65536, 1, 32, dtype=torch.float32)
    unit.pos = torch.arange(65536)[None]
    run: Any = ops.recurrent_unit
    whole, left, last = run(*unit.operands(), unit.h0)
    (dx,) = torch.autograd.grad(whole.sum(), [unit.x], retain_graph=True)
    x, *rest, pos, cache = unit.operands()
    at = 40001
    one, cache, h = run(x[:, :at], *rest, pos[:, :at], cache, unit.h0)
    two, cache, h = run(x[:, at:], *rest, pos[:, at:], cache, h)
    torch.testing.assert_close(torch.cat([one, two], 1), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(h, last, rtol=1e-5, atol=1e-5)
    assert torch.equal(cache, left)
    (parts,) = torch.autograd.grad(one.sum() + two.sum(), [unit.x])
    torch.testing.assert_close(parts, dx, rtol=1e-4, atol=1e-5)


@needs_native
def test_operators_are_well_formed() -> None:
    unit = Unit(2, 5, dtype=torch.float32)
    flat = unit.x, *unit.conv, *unit.gates, unit.param, unit.pos, unit.cache, unit.h0
    unit()  # loads the operators
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(torch.ops.griffin.recurrent_unit.default, flat, test_utils=checks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("steps", [1, 63, 200])
def test_with_gradients_as_without(steps: int, state: bool, dtype: torch.dtype) -> None:
    """The bits of a call without gradients, and the gradients of one with them."""
    unit = Unit(3, steps, 3, 40, dtype=dtype, state=state)
    given, leaves = unit.operands(), unit.leaves()
    with torch.no_grad():
        wanted = ops.recurrent_unit(*given, h0=unit.h0)
    found = ops.recurrent_unit(*given, h0=unit.h0, as_without=True)
    assert all(map(torch.equal, found, wanted))
    usual = ops.recurrent_unit(*given, h0=unit.h0)
    assert native.built() or all(map(torch.equal, found, usual))
    upstream = [draw(*t.shape, dtype=t.dtype, seed=n).detach() for n, t in enumerate(found)]
    ours, theirs = (torch.autograd.grad(results, leaves, upstream) for results in (found, usual))
    for one, other in zip(ours, theirs, strict=True):
        # The native ones are computed by the same passes from the same inputs.
        assert torch.equal(one, other)
    (only,) = torch.autograd.grad(
        ops.recurrent_unit(*given, h0=unit.h0, as_without=True)[0], [unit.x], upstream[0]
    )
    assert only.any()
