"""What training does between products, in C++: beside formulas in float64, forward and back."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from griffin import ops
from griffin.ops import kernels, native
from griffin.ops.softmax import add_to_sums, to_slopes
from tests.ops.test_twins import TOLERANCE, draw

pytestmark = pytest.mark.skipif(not native.built(), reason="kernels are not built")

SHAPES = [(1, 1), (3, 2), (65, 63), (130, 500), (64, 16), (2, 2561)]
EPS = 1e-6


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill what kernels write into with NaN, so that nothing is taken for written that is not."""
    fresh = kernels.fresh

    def poisoned(like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return fresh(like, dtype).fill_(float("nan"))

    monkeypatch.setattr(kernels, "fresh", poisoned)


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * (1 + weight)


def compare(
    ours: Callable[..., tuple[Tensor, ...]],
    exact: Callable[..., tuple[Tensor, ...]],
    inputs: list[Tensor],
    tolerance: float,
) -> None:
    """Compare results and gradients of a random weighting of them with those in float64."""
    wide = [t.detach().double().requires_grad_() for t in inputs]
    results, truths = ours(*inputs), exact(*wide)
    weights = [draw(*t.shape, dtype=torch.float64, seed=70 + k) for k, t in enumerate(truths)]
    weights = [w.detach().to(r.dtype) for w, r in zip(weights, results, strict=True)]
    grads = torch.autograd.grad(results, inputs, weights)
    wanted = torch.autograd.grad(truths, wide, [w.double() for w in weights])
    for got, want in zip((*results, *grads), (*truths, *wanted), strict=True):
        worst, scale = (got.double() - want).abs().max().item(), want.abs().max().item()
        assert worst <= tolerance * (scale + 0.1), f"{worst:.3g} of {scale:.3g}"
    for got, given in zip(grads, inputs, strict=True):
        assert got.dtype == given.dtype and got.shape == given.shape


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("strided", [False, True])
def test_the_norm_of_a_stream_and_the_stream(shape, dtype, strided) -> None:
    x, add = (draw(*shape, dtype=dtype, seed=n, strided=strided) for n in (0, 1))
    weight = draw(shape[-1], dtype=dtype, seed=2)
    with ops.use("native"):
        compare(
            lambda x, add, weight: ops.residual_norm(x, add, weight, EPS),
            lambda x, add, weight: (norm(x + add, weight), x + add),
            [x, add, weight],
            2 * TOLERANCE[dtype],
        )
        compare(
            lambda x, weight: ops.residual_norm(x, None, weight, EPS),
            lambda x, weight: (norm(x, weight), x),
            [x, weight],
            2 * TOLERANCE[dtype],
        )
        compare(
            lambda x, weight: (ops.rms_norm(x, weight, EPS),),
            lambda x, weight: (norm(x, weight),),
            [x, weight],
            2 * TOLERANCE[dtype],
        )


def test_under_autocast_the_norm_is_rounded_for_the_next_product() -> None:
    x, weight = draw(70, 48, dtype=torch.float32, seed=0), draw(48, dtype=torch.float32, seed=1)
    add = draw(70, 48, dtype=torch.bfloat16, seed=2)

    def ours(x: Tensor, add: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16):
            return ops.residual_norm(x, add, weight, EPS)

    compare(ours, lambda x, a, w: (norm(x + a, w), x + a), [x, add, weight], 1.6e-2)
    y, total = ours(x, add, weight)
    assert y.dtype == torch.bfloat16 and total.dtype == torch.float32
    assert torch.equal(total, x + add)
    with torch.autocast("cpu", torch.bfloat16):
        alone = ops.rms_norm(total, weight, EPS)
        with ops.use("eager"):
            eager = ops.rms_norm(total, weight, EPS)
        with torch.no_grad():
            quiet = ops.residual_norm(x, add, weight, EPS)
    assert torch.equal(alone, y) and torch.equal(quiet[0], y) and torch.equal(quiet[1], total)
    assert eager.dtype == torch.bfloat16
    torch.testing.assert_close(eager, y, rtol=1e-2, atol=1e-2)


def test_without_gradients_the_bits_are_the_same() -> None:
    x, add = (draw(9, 40, dtype=torch.float32, seed=n) for n in (0, 1))
    weight = draw(40, dtype=torch.float32, seed=2)
    trained = ops.residual_norm(x, add, weight, EPS)
    with torch.no_grad():
        plain = ops.residual_norm(x, add, weight, EPS)
        assert torch.equal(ops.rms_norm(x + add, weight, EPS), plain[0])
    assert all(torch.equal(a, b) for a, b in zip(trained, plain, strict=True))
    assert torch.equal(plain[1], x + add)


def test_a_stream_whose_norm_is_not_used_still_has_its_gradient() -> None:
    x, add = (draw(3, 8, dtype=torch.float32, seed=n) for n in (0, 1))
    weight = draw(8, dtype=torch.float32, seed=2)
    _, total = ops.residual_norm(x, add, weight, EPS)
    total.square().sum().backward()
    for t in (x, add):
        torch.testing.assert_close(t.grad, 2 * (x + add).detach())
    assert weight.grad is None


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 1025), (7, 700)], ids=str)
@pytest.mark.parametrize("strided", [False, True])
def test_the_gate_and_the_product_behind_it(shape, dtype, strided) -> None:
    gate, x = (draw(*shape, dtype=dtype, seed=n, strided=strided) for n in (0, 1))
    weight, bias = draw(6, shape[-1], dtype=dtype, seed=2), draw(6, dtype=dtype, seed=3)

    def exact(gate: Tensor, x: Tensor) -> Tensor:
        return functional.gelu(gate, approximate="tanh") * x

    with ops.use("native"):
        compare(
            lambda gate, x: (ops.gated_gelu(gate, x),),
            lambda gate, x: (exact(gate, x),),
            [gate, x],
            2 * TOLERANCE[dtype],
        )
        compare(
            lambda gate, x, *linear: (ops.gated_linear(gate, x, *linear),),
            lambda gate, x, *linear: (functional.linear(exact(gate, x), *linear),),
            [gate, x, weight, bias],
            2 * TOLERANCE[dtype],
        )


def test_many_tokens_are_taken_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["griffin.ops.gated_gelu"], "_TOGETHER", 3)
    gate, x = (draw(2, 4, 20, dtype=torch.float32, seed=n) for n in (0, 1))
    weight, bias = draw(6, 20, dtype=torch.float32, seed=2), draw(6, dtype=torch.float32, seed=3)
    compare(
        lambda gate, x, *linear: (ops.gated_linear(gate, x, *linear),),
        lambda gate, x, *linear: (
            functional.linear(functional.gelu(gate, approximate="tanh") * x, *linear),
        ),
        [gate, x, weight, bias],
        TOLERANCE[torch.float32],
    )


def test_the_gated_product_keeps_its_inputs_alone() -> None:
    gate, x = (draw(8, 32, dtype=torch.float32, seed=n) for n in (0, 1))
    weight = draw(4, 32, dtype=torch.float32, seed=2)
    kept: set[int] = set()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.add(t.data_ptr()), lambda t: t):
        ops.gated_linear(gate, x, weight)
    assert kept == {t.data_ptr() for t in (gate, x, weight)}


def test_what_is_frozen_gets_no_gradient() -> None:
    gate, x = (draw(8, 32, dtype=torch.float32, seed=n) for n in (0, 1))
    weight, bias = (draw(*shape, dtype=torch.float32, seed=2).detach() for shape in ((4, 32), (4,)))
    ops.gated_linear(gate, x, weight, bias).sum().backward()
    assert gate.grad is not None and x.grad is not None and weight.grad is None


def test_bits_do_not_depend_on_threads(with_threads: Callable[[int], None]) -> None:
    x, add = (draw(700, 96, dtype=torch.float32, seed=n) for n in (0, 1))
    weight = draw(96, dtype=torch.float32, seed=2)
    logits = draw(80, 999, dtype=torch.float32, seed=3).detach()
    column = torch.arange(80) * 13

    def run() -> list[Tensor]:
        out = ops.residual_norm(x, add, weight, EPS)
        gate = ops.gated_gelu(*out)
        grads = torch.autograd.grad(gate.square().sum(), [x, add, weight])
        total, right = torch.full((80,), float("-inf")), torch.zeros(80)
        tile = logits.clone()
        add_to_sums(tile, column, total, right)
        return [*out, *grads, total, right, to_slopes(tile, column, total, 0.0, 1.0)]

    with_threads(1)
    alone = run()
    with_threads(3)
    assert all(torch.equal(a, b) for a, b in zip(alone, run(), strict=True))


@pytest.mark.parametrize("columns", [1, 15, 16, 300])
@pytest.mark.parametrize("cap", [0.0, 5.0])
def test_sums_and_slopes_of_two_tiles(columns: int, cap: float) -> None:
    rows = 7
    raw = (4 * draw(rows, 2 * columns, dtype=torch.float64, seed=0)).detach().requires_grad_()
    capped = cap * torch.tanh(raw / cap) if cap else raw
    column = torch.tensor([0, columns - 1, columns, 2 * columns - 1, 0, 0, 0])
    losses = capped.logsumexp(1) - capped.gather(1, column[:, None])[:, 0]
    (wanted,) = torch.autograd.grad(3 * losses.sum(), raw)
    total, right = torch.full((rows,), float("-inf")), torch.zeros(rows)
    tiles = [t.contiguous() for t in capped.detach().float().split(columns, dim=1)]
    for number, tile in enumerate(tiles):
        add_to_sums(tile, column - number * columns, total, right)
    torch.testing.assert_close((total - right).double(), losses.detach(), rtol=1e-5, atol=1e-5)
    slopes = [
        to_slopes(tile, column - number * columns, total, cap, 3.0)
        for number, tile in enumerate(tiles)
    ]
    assert all(a is b for a, b in zip(slopes, tiles, strict=True))
    torch.testing.assert_close(torch.cat(slopes, 1).double(), wanted, rtol=1e-4, atol=1e-5)
    with ops.use("eager"):
        again = [t.contiguous() for t in capped.detach().float().split(columns, dim=1)]
        to_slopes(again[1], column - columns, total, cap, 3.0)
    torch.testing.assert_close(again[1], slopes[1], rtol=1e-4, atol=1e-5)


def test_logits_that_are_no_numbers_are_seen() -> None:
    for bad in (float("nan"), float("inf")):
        logits = torch.zeros(2, 20)
        logits[1, 18] = bad
        total, right = torch.full((2,), float("-inf")), torch.zeros(2)
        add_to_sums(logits, torch.zeros(2, dtype=torch.int64), total, right)
        assert total.isfinite().tolist() == [True, False]
