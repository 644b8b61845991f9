"""The product with weights as a checkpoint holds them: every instruction set, rows that feel no
company."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from griffin import ops
from griffin.ops import native
from griffin.ops.packed_linear import LAYOUTS
from tests.ops.test_packed_linear import draw

needs_native = pytest.mark.skipif(not native.built(), reason="the native kernels are not built")
SETS = native.instruction_sets()
SHAPES = [(1, 1), (3, 17), (16, 32), (33, 50), (64, 63), (130, 513), (200, 1100)]  # (O, I)
TYPES = [torch.float32, torch.bfloat16]


@needs_native
@pytest.mark.parametrize("chosen", SETS)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_product(shape: tuple[int, int], dtype: torch.dtype, chosen: str) -> None:
    weight, bias, x = (
        draw(*shape, dtype=dtype),
        draw(shape[0], seed=1, dtype=dtype),
        draw(40, shape[1], seed=2, dtype=dtype),
    )
    exact = x.double() @ weight.double().T
    scale = x.double().abs() @ weight.double().abs().T + bias.double().abs()
    close = 2**-8 if dtype == torch.bfloat16 else 1e-6
    with native.instruction_set(chosen):
        for rows in (1, 2, 17, 40):
            for got, want in (
                (ops.linear(x[:rows], weight, bias), exact[:rows] + bias.double()),
                (ops.linear(x[:rows], weight), exact[:rows]),
            ):
                assert got.dtype == dtype and got.shape == (rows, shape[0])
                error = (got.double() - want).abs()
                assert (error <= close * want.abs() + 1e-6 * scale[:rows]).all(), rows


@needs_native
@pytest.mark.parametrize("chosen", SETS)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(70, 96), (40, 3000)], ids=str)
def test_rows_and_threads_do_not_change_a_bit(
    shape: tuple[int, int], dtype: torch.dtype, chosen: str, with_threads: Callable[[int], None]
) -> None:
    weight, x = draw(*shape, dtype=dtype), draw(70, shape[1], seed=1, dtype=dtype)
    with native.instruction_set(chosen):
        with_threads(1)
        whole = ops.linear(x, weight)
        for threads in (1, 2, 3):
            with_threads(threads)
            for rows in (*range(1, 18), 31, 32, 33, 47, 70):
                assert torch.equal(ops.linear(x[:rows], weight), whole[:rows]), (threads, rows)
            assert torch.equal(ops.linear(x[9:], weight), whole[9:])


@needs_native
def test_strides_empty_calls_and_leading_dimensions() -> None:
    weight, x = draw(24, 40), draw(40, 6, seed=1)
    want = ops.linear(x.T.contiguous(), weight)
    assert torch.equal(ops.linear(x.T, weight), want)
    assert torch.equal(ops.linear(x.T, weight.T.contiguous().T), want)
    assert torch.equal(ops.linear(x.T.reshape(2, 3, 40), weight), want.reshape(2, 3, 24))
    assert ops.linear(x.T[:0], weight).shape == (0, 24)


def before_a_wall(tensor: Tensor) -> Tensor:
    """Return a copy behind whose last byte no memory may be touched."""
    page, bytes_ = mmap.PAGESIZE, tensor.nbytes
    size = -(-bytes_ // page) * page + page
    memory = mmap.mmap(-1, size)
    copy = torch.frombuffer(
        memory, dtype=tensor.dtype, offset=size - page - bytes_, count=tensor.numel()
    )
    wall = copy.data_ptr() + bytes_
    assert ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(wall), page, 0) == 0
    return copy.view(tensor.shape).copy_(tensor)


@needs_native
@pytest.mark.skipif(sys.platform != "linux", reason="walls are built with Linux's mprotect")
@pytest.mark.parametrize("chosen", SETS)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_nothing_behind_the_last_weight_is_read(dtype: torch.dtype, chosen: str) -> None:
    """An address checker does not see what tiles load: here the kernel of the system looks."""
    weight = draw(21, 70, dtype=dtype)
    walled = before_a_wall(weight)
    with native.instruction_set(chosen):
        for rows in (1, 5, 33):
            x = draw(rows, 70, seed=1, dtype=dtype)
            assert torch.equal(ops.linear(before_a_wall(x), walled), ops.linear(x, weight))
            for format in LAYOUTS:
                packed = ops.pack(weight, format)
                there = packed._replace(data=before_a_wall(packed.data))
                found = ops.packed_linear(before_a_wall(x), there)
                assert torch.equal(found, ops.packed_linear(x, packed))


@needs_native
@pytest.mark.skipif("amx" not in SETS, reason="this machine has no tiles")
def test_packed_and_unpacked_weights_have_one_order_of_sums_on_tiles() -> None:
    """Both are summed 32 inputs at a time, the even and the odd ones apart: the bits are the
    same."""
    weight, x = draw(48, 700, dtype=torch.bfloat16), draw(21, 700, seed=1, dtype=torch.bfloat16)
    assert torch.equal(ops.linear(x, weight), ops.packed_linear(x, ops.pack(weight, "bf16")))
    even, odd = torch.zeros(21, 48), torch.zeros(21, 48)
    total = torch.zeros(21, 48)
    for first in range(0, 700, 32):
        even.zero_()
        odd.zero_()
        # A product of two bfloat16 is exact in float32.
        for k in range(first, min(first + 32, 700), 2):
            even += x[:, k, None].float() * weight[:, k].float()
            odd += x[:, k + 1, None].float() * weight[:, k + 1].float()
        total += even + odd
    assert torch.equal(ops.packed_linear(x, ops.pack(weight, "bf16"), None, torch.float32), total)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_what_does_not_fit_is_torchs_to_refuse(dtype: torch.dtype) -> None:
    x, weight = draw(4, 128, dtype=dtype), draw(64, 64, dtype=dtype)
    for bad in (x, x[:, :32], torch.zeros(4, 0, dtype=dtype)):
        with pytest.raises(RuntimeError):
            ops.linear(bad, weight)
    with pytest.raises(RuntimeError):
        ops.linear(x[:, :64], weight, draw(63, dtype=dtype))
    one = draw(1, dtype=dtype)
    close = {"rtol": 2**-7, "atol": 2**-4} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(
        ops.linear(x[:, :64], weight, one), ops.linear(x[:, :64], weight) + one, **close
    )


def test_a_strided_bias_is_read_as_it_is() -> None:
    x, weight, table = draw(3, 64), draw(5000, 64, seed=1), draw(5000, 7, seed=2)
    want = ops.linear(x, weight) + table[:, 3]
    for _ in range(5):
        torch.testing.assert_close(ops.linear(x, weight, table[:, 3]), want)


def test_autocast_is_torchs() -> None:
    """Validation under autocast multiplies as training does."""
    x, weight = draw(3, 64), draw(8, 64, seed=1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert ops.linear(x, weight).dtype == torch.bfloat16


def test_gradients_are_torchs() -> None:
    weight, x = draw(5, 8).requires_grad_(), draw(3, 8, seed=1).requires_grad_()
    y: Tensor = ops.linear(x, weight)
    dx, dw = torch.autograd.grad(y.sum(), (x, weight))
    torch.testing.assert_close(dx, weight.sum(0).expand(3, 8))
    torch.testing.assert_close(dw, x.sum(0).expand(5, 8))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_with_gradients_as_without(dtype: torch.dtype, biased: bool) -> None:
    weight, x = draw(70, 96, dtype=dtype), draw(2, 20, 96, seed=1, dtype=dtype)
    bias, dy = draw(70, seed=2, dtype=dtype), draw(2, 20, 70, seed=3, dtype=dtype)
    given = (x, weight, bias) if biased else (x, weight)
    wanted = ops.linear(*given)
    leaves = [t.requires_grad_() for t in given]
    found = ops.linear(*given, as_without=True)
    assert found.requires_grad and torch.equal(found, wanted)
    theirs = torch.autograd.grad(ops.linear(*given), leaves, dy)
    for one, other in zip(torch.autograd.grad(found, leaves, dy), theirs, strict=True):
        torch.testing.assert_close(one, other)
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.linear(*given, as_without=True).dtype == torch.bfloat16


def test_gradients_as_without_are_right() -> None:
    given = [draw(*shape, seed=n).double() for n, shape in enumerate(((2, 3, 5), (4, 5), (4,)))]
    leaves = [t.requires_grad_() for t in given]
    assert torch.autograd.gradcheck(lambda *t: ops.linear(*t, as_without=True), leaves)


@needs_native
@pytest.mark.parametrize("as_without", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_bfloat16_with_gradients_goes_around_a_slow_product(
    monkeypatch: pytest.MonkeyPatch, biased: bool, as_without: bool
) -> None:
    """Where torch takes ten times as long for bfloat16, products are of float32, rounded once."""
    monkeypatch.setattr(native, "multiplies_bfloat16", lambda: False)
    # Slices of 7 of the 24 outputs; the module has the function's name.
    monkeypatch.setattr(sys.modules["griffin.ops.linear"], "_WEIGHTS", 7 * 40)
    given = draw(2, 9, 40), draw(24, 40, seed=1), draw(24, seed=2)
    x, weight, bias = (t.bfloat16().requires_grad_() for t in given)
    exact = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    dy = draw(2, 9, 24, seed=3).bfloat16()
    seen: set[torch.dtype] = set()

    class Types(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
                seen.update(t.dtype for t in args if isinstance(t, Tensor))
            return func(*args, **(kwargs or {}))

    with Types():
        y = ops.linear(x, weight, bias if biased else None, as_without=as_without)
        y.backward(dy)
    assert seen == {torch.float32}
    want = exact[0] @ exact[1].T + (exact[2] if biased else 0)
    want.backward(dy.double())
    close = {"rtol": 2**-8, "atol": 1e-5}
    torch.testing.assert_close(y.double(), want, **close)
    for got, true in zip((x, weight, bias)[: 2 + biased], exact, strict=False):
        assert got.grad is not None and got.grad.dtype == torch.bfloat16
        torch.testing.assert_close(got.grad.double(), true.grad, **close)
