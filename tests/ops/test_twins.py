"""Every implementation of an op against its reference: values and all gradients, odd sizes, odd
layouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from griffin import ops
from griffin.ops import native
from griffin.ops.dispatch import IMPLEMENTATIONS
from griffin.ops.linear import block_linear
from griffin.ops.rg_lru import Gate

LENGTHS = [1, 2, 3, 16, 17, 63, 257, 500, 1000]
# Largest difference allowed, relative to the largest value: docs/numerics.md.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 1.6e-2}


def here(op: str) -> list[str]:
    """Return the implementations of an op that this installation has on the CPU."""
    missing = ("triton",) if native.built() else ("triton", "native")
    return [name for name in IMPLEMENTATIONS[op] if name not in missing]


def draw(*shape: int, dtype: torch.dtype, seed: int, strided: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if strided:  # every second entry of a larger tensor, the gaps full of NaN
        holder = torch.full((*shape[:-1], 2 * shape[-1]), float("nan"), dtype=dtype)
        holder[..., ::2] = torch.randn(shape, generator=generator).to(dtype)
        return holder[..., ::2].detach().requires_grad_()
    return torch.randn(shape, generator=generator).to(dtype).requires_grad_()


def positions(rows: int, steps: int, pads: bool) -> Tensor:
    """Positions with documents starting here and there, after a few pads in the last row."""
    out = torch.zeros(rows, steps, dtype=torch.int64)
    for row in range(rows):
        position = 3 + row
        for t in range(steps):
            if pads and row == rows - 1 and t < min(4, steps - 1):
                out[row, t] = -1
                continue
            position = 0 if (t * 7 + row * 3) % 23 == 5 or (t % 29 == row + 8) else position
            out[row, t] = position
            position += 1
    return out


def check(
    op: str, run: Callable[[], tuple[list[Tensor], list[Tensor]]], dtype: torch.dtype
) -> None:
    """Run an op as it is and as reference; compare results and, for wide types, gradients."""
    with ops.use("reference"):
        expected = run()
    for name in here(op):
        with ops.use(name):
            actual = run()
        for kind in (0, 1) if dtype != torch.bfloat16 else (0,):
            for got, want in zip(actual[kind], expected[kind], strict=True):
                assert got.dtype == want.dtype
                scale = want.abs().max().item() + 1e-9
                worst = (got - want).abs().max().item()
                assert worst <= TOLERANCE[dtype] * scale, f"{op} {name}: {worst:.3g} of {scale:.3g}"


def collect(outputs: list[Tensor], inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and the gradients of a random weighting of all of them."""
    loss: Any = 0
    for number, out in enumerate(outputs):
        loss = (
            loss
            + (
                out.double() * draw(*out.shape, dtype=torch.float64, seed=90 + number).detach()
            ).sum()
        )
    grads = torch.autograd.grad(loss, inputs)
    return [out.detach() for out in outputs], list(grads)


@pytest.mark.sweep
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("strided", [False, True])
def test_linear_scan(steps: int, dtype: torch.dtype, strided: bool) -> None:
    x = draw(2, steps, 5, dtype=dtype, seed=0, strided=strided)
    a = torch.sigmoid(2 + draw(2, steps, 5, dtype=dtype, seed=1)).detach()
    a[:, steps // 2] = 0
    a = a.requires_grad_()
    h0 = draw(2, 5, dtype=torch.promote_types(dtype, torch.float32), seed=2)

    def run() -> tuple[list[Tensor], list[Tensor]]:
        return collect(list(ops.linear_scan(x, a, h0)), [x, a, h0])

    check("linear_scan", run, dtype)


@pytest.mark.sweep
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("taps", [1, 2, 4])
def test_causal_conv(steps: int, dtype: torch.dtype, taps: int) -> None:
    x = draw(3, steps, 6, dtype=dtype, seed=0, strided=True)
    weight, bias = draw(6, 1, taps, dtype=dtype, seed=1), draw(6, dtype=dtype, seed=2)
    cache = draw(3, taps - 1, 6, dtype=dtype, seed=3)
    segment_pos = positions(3, steps, pads=True)
    inputs = [x, weight, bias] + ([cache] if taps > 1 else [])

    def run() -> tuple[list[Tensor], list[Tensor]]:
        y, left = ops.causal_conv(x, weight, bias, segment_pos, cache)
        outputs = [y * (segment_pos >= 0)[..., None]]
        return collect([*outputs, left] if taps > 1 else outputs, inputs)

    check("causal_conv", run, dtype)


@pytest.mark.sweep
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("slow", [False, True], ids=["", "near_one"])
def test_rg_lru(steps: int, dtype: torch.dtype, slow: bool) -> None:
    x = draw(2, steps, 12, dtype=dtype, seed=0, strided=True)
    one = Gate(draw(3, 4, 4, dtype=dtype, seed=1), draw(3, 4, dtype=dtype, seed=2))
    other = Gate(draw(3, 4, 4, dtype=dtype, seed=3), draw(3, 4, dtype=dtype, seed=4))
    # near_one: a within 1e-6 of 1, where 1 - a^2 formed from a rounded a would be nothing but
    # rounding
    param = (draw(12, dtype=dtype, seed=5) - (14 if slow else 2)).detach().requires_grad_()
    h0 = draw(2, 12, dtype=torch.promote_types(dtype, torch.float32), seed=6)
    segment_pos = positions(2, steps, pads=True)

    def run() -> tuple[list[Tensor], list[Tensor]]:
        out = ops.rg_lru(x, one, other, param, segment_pos, h0)
        return collect(list(out), [x, *one, *other, param, h0])

    check("rg_lru", run, dtype)


@pytest.mark.sweep
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", [1, 5, 16])
@pytest.mark.parametrize("steps", [1, 2, 11, 33, 63])
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_local_attention(steps: int, size: int, dtype: torch.dtype, kv_heads: int) -> None:
    q = draw(3, steps, 4, 6, dtype=dtype, seed=0)
    k, v = (draw(3, steps, kv_heads, 6, dtype=dtype, seed=n, strided=True) for n in (1, 2))
    ring = (
        draw(3, size, kv_heads, 6, dtype=dtype, seed=3),
        draw(3, size, kv_heads, 6, dtype=dtype, seed=4),
    )
    segment_pos = positions(3, steps, pads=True)
    before = torch.tensor([3, 4, 5])
    inputs = [q, k, v, *ring]

    def run() -> tuple[list[Tensor], list[Tensor]]:
        window = ops.plan_window(segment_pos, size, before)
        y, after = ops.local_attention(q, k, v, window, ring)
        return collect([y * (segment_pos >= 0)[..., None, None], *after], inputs)

    check("local_attention", run, dtype)


def test_local_attention_without_a_ring_equals_an_empty_one() -> None:
    q, k, v = (draw(2, 40, n, 6, dtype=torch.float32, seed=n) for n in (4, 1, 1))
    segment_pos = torch.arange(40).expand(2, -1)
    ring = (torch.zeros(2, 8, 1, 6), torch.zeros(2, 8, 1, 6))
    bare, left = ops.local_attention(q, k, v, ops.plan_window(segment_pos, 8, None))
    empty, also = ops.local_attention(
        q, k, v, ops.plan_window(segment_pos, 8, torch.zeros(2).long()), ring
    )
    torch.testing.assert_close(bare, empty, rtol=1e-5, atol=1e-6)
    assert torch.equal(left[0], also[0])


@pytest.mark.parametrize("op", ["linear_scan", "causal_conv", "rg_lru"])
def test_gradcheck(op: str) -> None:
    """The written-out gradients against finite differences, in float64."""
    wide = torch.float64
    x = draw(2, 19, 4, dtype=wide, seed=0)
    segment_pos = positions(2, 19, pads=True)
    if op == "linear_scan":
        a = torch.rand(2, 19, 4, dtype=wide).requires_grad_()
        assert torch.autograd.gradcheck(ops.linear_scan, (x, a, draw(2, 4, dtype=wide, seed=2)))
    elif op == "causal_conv":
        weight, bias = draw(4, 1, 4, dtype=wide, seed=1), draw(4, dtype=wide, seed=2)
        cache = draw(2, 3, 4, dtype=wide, seed=3)

        def conv(*args: Tensor) -> tuple[Tensor, Tensor]:
            return ops.causal_conv(args[0], args[1], args[2], segment_pos, args[3])

        assert torch.autograd.gradcheck(conv, (x, weight, bias, cache))
    else:
        weights = [draw(2, 2, 2, dtype=wide, seed=n) for n in (1, 3)]
        biases = [draw(2, 2, dtype=wide, seed=n) for n in (2, 4)]
        param, h0 = draw(4, dtype=wide, seed=5), draw(2, 4, dtype=wide, seed=6)

        def unit(
            x: Tensor, wi: Tensor, bi: Tensor, wr: Tensor, br: Tensor, p: Tensor, h: Tensor
        ) -> Any:
            return ops.rg_lru(x, Gate(wi, bi), Gate(wr, br), p, segment_pos, h)

        inputs = (x, weights[0], biases[0], weights[1], biases[1], param, h0)
        assert torch.autograd.gradcheck(unit, inputs)


def test_square_root_gradient_is_clipped() -> None:
    """At a = 1 the true gradient of sqrt(1 - a^2) is infinite; both implementations stop at
    1000."""
    x = torch.ones(1, 2, 1, dtype=torch.float64)
    gate = Gate(torch.zeros(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
    segment_pos = torch.tensor([[5, 6]])
    for name in here("rg_lru"):
        param = torch.tensor([-60.0], dtype=torch.float64, requires_grad=True)
        with ops.use(name):
            h, _ = ops.rg_lru(x, gate, gate, param, segment_pos)
        (grad,) = torch.autograd.grad(h[0, 0, 0], param)
        # dh/dparam = i x * 1000 * d(1 - a^2)/dparam; i = r = 1/2, so d log a/dparam = -4
        # sigmoid(param)
        expected = 0.5 * 1000 * 2 * 4 * torch.sigmoid(param.detach())
        torch.testing.assert_close(grad, expected, rtol=1e-9, atol=0)


@pytest.mark.sweep
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(48, 80), (256, 768), (2560, 256)])
def test_linear_rows_do_not_feel_each_other(
    shape: tuple[int, int], dtype: torch.dtype, threads: int, with_threads: Callable[[int], None]
) -> None:
    """A row has the same bits with any company."""
    with_threads(threads)
    weight = draw(shape[1], shape[0], dtype=dtype, seed=0).detach()
    bias = draw(shape[1], dtype=dtype, seed=1).detach()
    x = draw(200, shape[0], dtype=dtype, seed=2).detach()
    whole = ops.linear(x, weight, bias)
    for rows in (1, 2, 3, 5, 6, 7, 8, 9, 11, 13, 31):
        assert torch.equal(ops.linear(x[:rows], weight, bias), whole[:rows]), f"{rows} rows"


@pytest.mark.parametrize("threads", [1, 2])
def test_gate_rows_do_not_feel_each_other(
    threads: int, with_threads: Callable[[int], None]
) -> None:
    with_threads(threads)
    weight = draw(3, 64, 64, dtype=torch.float32, seed=0).detach()
    bias = draw(3, 64, dtype=torch.float32, seed=1).detach()
    x = draw(100, 192, dtype=torch.float32, seed=2).detach()
    whole = block_linear(x, weight, bias)
    for rows in (1, 2, 3, 5, 7, 9, 31):
        assert torch.equal(block_linear(x[:rows], weight, bias), whole[:rows]), f"{rows} rows"


@pytest.mark.parametrize("threads", [1, 2])
def test_attention_rows_of_one_token_do_not_feel_each_other(
    threads: int, with_threads: Callable[[int], None]
) -> None:
    """Decoding: a row's attention has the same bits with any company."""
    with_threads(threads)
    q, k, v = (draw(5, 1, n, 64, dtype=torch.float32, seed=n).detach() for n in (3, 1, 1))
    ring = tuple(draw(5, 512, 1, 64, dtype=torch.float32, seed=n).detach() for n in (8, 9))
    before = torch.tensor([600, 3, 512, 0, 700])
    window = ops.plan_window(before[:, None], 512, before)
    together, _ = ops.local_attention(q, k, v, window, (ring[0], ring[1]))
    for row in range(5):
        at = slice(row, row + 1)
        own = ops.plan_window(before[at, None], 512, before[at])
        alone, _ = ops.local_attention(q[at], k[at], v[at], own, (ring[0][at], ring[1][at]))
        assert torch.equal(alone[0], together[row])
