"""Local attention's Triton kernel, in the interpreter, against the reference in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from griffin import ops
from griffin.ops.launching import record
from griffin.ops.local_attention import gradient
from griffin.ops.local_attention import triton as kernels
from tests.ops.test_twins import draw
from tests.support.triton import TOLERANCE, error, interpreted, poisoned

__all__ = ["interpreted", "poisoned"]
pytestmark = pytest.mark.usefixtures("interpreted")
Ring = tuple[Tensor, Tensor]
BF16 = torch.bfloat16
Shape = tuple[int, int, int, int, int]  # tokens, heads of queries, of keys, their width, the window


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take 16 tokens and 16 keys at a time."""
    monkeypatch.setattr(kernels, "_QUERIES", 16)
    monkeypatch.setattr(kernels, "_KEYS", 16)
    monkeypatch.setattr(gradient, "TILE", 16)


def places(steps: int, before: Tensor | None) -> Tensor:
    """Return positions of three rows: one goes on, one begins a document on its way, one begins
    with pads and is another's after them."""
    at = torch.arange(steps).repeat(3, 1)
    if before is not None:
        at += before[:, None]
    at[1, steps // 2 :] = torch.arange(steps - steps // 2)
    pads = min(3, steps - 1)
    at[2] -= pads
    at[2, :pads] = -1
    if before is None and pads:
        at[2, pads:] = torch.arange(steps - pads)
    return at


def operands(
    shape: Shape, fresh: bool, dtype: torch.dtype = BF16
) -> tuple[Tensor, Tensor, Tensor, ops.Window, Ring | None]:
    steps, heads, groups, head, size = shape
    q, k, v = (
        draw(3, steps, n, head, dtype=dtype, seed=seed).detach()
        for seed, n in enumerate((heads, groups, groups))
    )
    before = None if fresh else torch.tensor([2, size + 5, 1_000])
    window = ops.plan_window(places(steps, before), size, before)
    if fresh:
        return q, k, v, window, None
    keys, values = (draw(3, size, groups, head, dtype=dtype, seed=s).detach() for s in (3, 4))
    for each in (keys, values):
        each[window.slot_position < 0] = 0
    return q, k, v, window, (keys, values)


@torch.no_grad()
def check(shape: Shape, fresh: bool, dtype: torch.dtype = BF16) -> None:
    """Float32 is torch's, which is held to the same."""
    q, k, v, window, ring = operands(shape, fresh, dtype)
    with ops.use("triton"), record() as launches:
        got, after = ops.local_attention(q, k, v, window, ring)
    assert [each.name for each in launches] == ["_local_attention"] * (dtype == BF16)
    wide = None if ring is None else (ring[0].double(), ring[1].double())
    with ops.use("reference"):
        want, right = ops.local_attention(q.double(), k.double(), v.double(), window, wide)
    assert got.dtype == dtype and not got.isnan().any()
    real = ~window.pad  # what a pad attends to is no matter
    assert error(got[real], want[real]) <= TOLERANCE[dtype]
    for mine, truth in zip(after, right, strict=True):
        assert torch.equal(mine.double(), truth)


@pytest.mark.parametrize(
    ("shape", "fresh"),
    [((20, 2, 1, 20, 17), False), ((1, 4, 2, 16, 9), False), ((5, 2, 2, 8, 3), True)],
)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_values_and_rings(shape, fresh, dtype, poisoned, small_tiles):
    check(shape, fresh, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 3, 16, 17, 63, 64, 65, 129, 200])
@pytest.mark.parametrize("rest", [(2, 1, 33, 20), (3, 3, 16, 64), (4, 2, 8, 1)], ids=str)
@pytest.mark.parametrize("fresh", [False, True])
def test_many_values_and_rings(steps, rest, fresh, dtype, poisoned, small_tiles):
    check((steps, *rest), fresh, dtype)


@torch.no_grad()
def test_a_row_has_the_bits_it_has_alone(small_tiles):
    q, k, v, window, ring = operands((18, 2, 1, 16, 12), False)
    assert ring is not None
    with ops.use("triton"):
        together, _ = ops.local_attention(q, k, v, window, ring)
        for row in range(3):
            own = slice(row, row + 1)
            position, before = window.position[own], torch.tensor([[2, 17, 1_000][row]])
            alone = ops.plan_window(position, 12, before)
            kept = ring[0][own], ring[1][own]
            y, _ = ops.local_attention(q[own], k[own], v[own], alone, kept)
            assert torch.equal(y, together[own])


def with_gradients(
    implementation: str, given: list[Tensor], window: ops.Window, fresh: bool
) -> tuple[list[Tensor], list[str]]:
    """Return the values of what is no pad, the gradients of all that is given, and what was
    launched."""
    leaves = [t.detach().requires_grad_() for t in given]
    q, k, v, *ring = leaves
    with ops.use(implementation), record() as launches:
        y, _ = ops.local_attention(q, k, v, window, None if fresh else (ring[0], ring[1]))
        seed = draw(*y.shape, dtype=torch.float64, seed=9).detach()
        # What a pad attends to is no matter.
        seed = seed.masked_fill(window.pad[..., None, None], 0).to(BF16).to(y.dtype)
        gradients = torch.autograd.grad(y, leaves, seed)
    return [y.detach()[~window.pad], *gradients], [each.name for each in launches]


def check_gradients(shape: Shape, fresh: bool) -> None:
    q, k, v, window, ring = operands(shape, fresh)
    given = [q, k, v, *(ring or ())]
    got, launched = with_gradients("triton", given, window, fresh)
    launched.remove("_local_attention")
    kernels = ["_gradient_of_queries", *["_gradient_of_keys"] * (1 if fresh else 2)]
    assert launched == kernels
    want, _ = with_gradients("reference", [t.double() for t in given], window, fresh)
    for mine, truth in zip(got, want, strict=True):
        assert mine.dtype == BF16
        if truth.any():
            assert error(mine, truth) <= TOLERANCE[BF16]
        else:  # of one key alone the score does not matter
            assert mine.abs().max() <= 1e-6


# Several tiles, a window's edge within one, heads that share keys, and documents across them.
TRAINED: list[Shape] = [(40, 4, 2, 20, 17), (1, 2, 1, 16, 9), (5, 2, 2, 8, 3)]


@pytest.mark.parametrize("fresh", [False, True], ids=["ring", ""])
@pytest.mark.parametrize("shape", TRAINED, ids=str)
def test_gradients(shape, fresh, poisoned, small_tiles):
    check_gradients(shape, fresh)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2, 3, 16, 17, 63, 64, 65, 129, 200])
@pytest.mark.parametrize("rest", [(2, 1, 33, 20), (3, 3, 16, 64), (4, 2, 8, 1)], ids=str)
@pytest.mark.parametrize("fresh", [False, True], ids=["ring", ""])
def test_many_gradients(steps, rest, fresh, poisoned, small_tiles):
    check_gradients((steps, *rest), fresh)


def test_a_result_has_the_bits_it_has_without_a_gradient(small_tiles):
    q, k, v, window, ring = operands((20, 2, 1, 20, 17), False)
    with ops.use("triton"):
        trained, _ = ops.local_attention(q.requires_grad_(), k, v, window, ring)
        plain, _ = ops.local_attention(q.detach(), k, v, window, ring)
    assert torch.equal(trained, plain)


def test_gradients_in_float32_are_those_of_torch():
    found = []
    for name in ("triton", "eager"):
        q, k, v = (draw(1, 4, 2, 8, dtype=torch.float32, seed=seed) for seed in range(3))
        window = ops.plan_window(torch.arange(4)[None], 3, None)
        with ops.use(name):
            y, _ = ops.local_attention(q, k, v, window)
        found.append(torch.autograd.grad(y.square().sum(), [q, k, v]))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_heads_that_the_kernel_has_no_room_for_are_those_of_torch():
    q, k, v = (draw(1, 3, n, 257, dtype=BF16, seed=n).detach() for n in (2, 1, 1))
    window = ops.plan_window(torch.arange(3)[None], 2, None)
    found = []
    for name in ("triton", "eager"):
        with ops.use(name), record() as launches:
            found.append(ops.local_attention(q, k, v, window)[0])
        assert not launches
    assert torch.equal(*found)


class Largest(TorchDispatchMode):
    """The most values that any tensor had which was made."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            sizes = [t.numel() for t in tree_flatten(out)[0] if isinstance(t, Tensor)]
            self.values = max([self.values, *sizes])
        return out


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("fresh", [False, True], ids=["ring", ""])
def test_there_is_no_mask_in_memory(fresh, trained):
    """A chunk of 4,096 tokens, at the widths of 2B: nothing is larger than the queries, which a
    mask of tokens by the keys of two windows would be."""
    steps, heads, head, size = 4_096, 10, 256, 2_048
    with torch.device("meta"), Largest() as made, ops.use("triton"):
        q, k, v = (torch.empty(1, steps, n, head, dtype=BF16) for n in (heads, 1, 1))
        rings = [torch.empty(1, size, 1, head, dtype=BF16) for _ in "kv"]
        leaves = [t.requires_grad_(trained) for t in (q, k, v, *([] if fresh else rings))]
        before = None if fresh else torch.empty(1, dtype=torch.int64)
        at = torch.empty(1, steps, dtype=torch.int64)
        window = ops.plan_window(at, size, before, in_place=not trained)
        y, _ = ops.local_attention(q, k, v, window, None if fresh else (rings[0], rings[1]))
        if trained:
            torch.autograd.grad(y, leaves, torch.empty_like(y))
    assert made.values == steps * heads * head < steps * 2 * size
