"""Attention's gradient in the native kernels: the reference's numbers, whatever the cut, company or
number of threads, and memory in proportion to the tokens."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from griffin import ops
from griffin.ops import kernels, native

pytestmark = pytest.mark.skipif(not native.built(), reason="the native kernels are not built")
SETS = native.instruction_sets()
# Largest difference allowed, relative to the largest value: docs/numerics.md.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 1.6e-2}
TYPES = list(TOLERANCE)


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel leaves unwritten is NaN."""

    def fresh(like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return torch.full_like(like, torch.nan, dtype=dtype, memory_format=torch.contiguous_format)

    monkeypatch.setattr(kernels, "fresh", fresh)


def draw(*shape: int, seed: int) -> Tensor:
    """Numbers that every type can hold."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16().double()


def positions(steps: int, before: int) -> Tensor:
    """Row 0 goes on and starts two more documents, row 1 is one document, row 2 is padded first."""
    out = torch.arange(steps).repeat(3, 1)
    out[0] += before
    for start in (steps // 3, steps // 2):
        if start:
            out[0, start:] = torch.arange(steps - start)
    pads = min(4, steps - 1)
    out[2] = torch.arange(steps) - pads
    out[2, pads:] += before
    out[2, :pads] = -1
    return out


class Call:
    """One call of attention on three rows, and the gradients of a weighting of what it returns."""

    def __init__(self, steps: int, size: int, ring: bool, heads: tuple[int, int, int]) -> None:
        n, k, width = heads
        self.size, self.before = size, torch.tensor([7, 0, 7]) if ring else None
        self.position = positions(steps, 7 if ring else 0)
        self.inputs = [draw(3, steps, n, width, seed=0)]
        self.inputs += [draw(3, steps, k, width, seed=seed) for seed in (1, 2)]
        self.inputs += [draw(3, size, k, width, seed=seed) for seed in (3, 4)] if ring else []
        self.weighting = draw(3, steps, n, width, seed=5)
        # What a pad reads of a ring is nobody's business.
        self.read = (self.position >= 0 if ring else self.position > -9)[..., None, None]

    def __call__(self, dtype: torch.dtype, strided: bool = False) -> list[Tensor]:
        """Return y and the gradients of q, k, v and of the ring."""
        inputs = [t.to(dtype) for t in self.inputs]
        weighting = (self.weighting * self.read).to(dtype)
        if strided:  # heads before tokens in memory
            *inputs, weighting = (
                t.transpose(1, 2).contiguous().transpose(1, 2) for t in (*inputs, weighting)
            )
        inputs = [t.detach().requires_grad_() for t in inputs]
        window = ops.plan_window(self.position, self.size, self.before)
        q, k, v, *ring = inputs
        y, _ = ops.local_attention(q, k, v, window, tuple(ring) if ring else None)
        return [(y * self.read).detach(), *torch.autograd.grad(y, inputs, weighting)]


@cache
def expected(steps: int, size: int, ring: bool, heads: tuple[int, int, int]) -> list[Tensor]:
    with ops.use("reference" if steps < 200 else "eager"):  # for the loop a minute
        return Call(steps, size, ring, heads)(torch.float64)


def assert_close(got: list[Tensor], want: list[Tensor], dtype: torch.dtype) -> None:
    names = ("y", "dq", "dk", "dv", "dring_k", "dring_v")
    for name, a, b in zip(names, got, want, strict=False):
        assert a.dtype == dtype and a.shape == b.shape
        worst, scale = (a.double() - b).abs().max().item(), b.abs().max().item() + 1e-9
        assert worst <= TOLERANCE[dtype] * scale, f"{name}: {worst:.3g} of {scale:.3g}"


# (steps, window, heads): several blocks, several groups of queries, and units that share keys.
CASES = [
    (1, 3, (2, 1, 8)),
    (2, 1, (4, 2, 20)),
    (63, 1, (4, 1, 32)),
    (63, 200, (6, 2, 9)),
    (129, 3, (1, 1, 70)),
    (129, 128, (4, 1, 32)),
    (500, 200, (10, 1, 4)),
    (500, 128, (2, 2, 5)),
]


@pytest.mark.sweep
@pytest.mark.thorough
@pytest.mark.parametrize("chosen", SETS)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("ring", [False, True], ids=["", "ring"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_equal_the_reference(
    case: tuple[int, int, tuple[int, int, int]], ring: bool, dtype: torch.dtype, chosen: str
) -> None:
    steps, size, heads = case
    call = Call(steps, size, ring, heads)
    with ops.use("native"), native.instruction_set(chosen):
        got = call(dtype)
        assert_close(got, expected(steps, size, ring, heads), dtype)
        for a, b in zip(call(dtype, strided=True), got, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("ring", [False, True], ids=["", "ring"])
def test_gradients_equal_finite_differences(ring: bool) -> None:
    call = Call(9, 4, ring, (4, 2, 3))
    window = ops.plan_window(call.position, call.size, call.before)

    def attend(q: Tensor, k: Tensor, v: Tensor, *ring: Tensor) -> Tensor:
        return call.read * ops.local_attention(q, k, v, window, tuple(ring) if ring else None)[0]

    with ops.use("native"):
        assert torch.autograd.gradcheck(attend, [t.requires_grad_() for t in call.inputs])


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("steps", [1, 150])
def test_a_result_has_the_bits_it_has_without_a_gradient(steps: int, dtype: torch.dtype) -> None:
    call = Call(steps, 100, True, (4, 1, 32))
    window = ops.plan_window(call.position, call.size, call.before)
    q, k, v, *ring = (t.to(dtype) for t in call.inputs)
    with ops.use("native"):
        plain, _ = ops.local_attention(q, k, v, window, (ring[0], ring[1]))
        assert torch.equal(call(dtype)[0], plain * call.read)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_number_of_threads_does_not_change_a_bit(dtype: torch.dtype, threads: None) -> None:
    """More units than fit into a wave, so that keys get sums of several."""
    call, results = Call(2100, 300, True, (4, 2, 16)), []
    with ops.use("eager"):
        wanted = [t.double() for t in call(dtype)]
    with ops.use("native"):
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(call(dtype))
    assert_close(results[0], wanted, dtype)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("chosen", SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_document_feels_nobody_else(dtype: torch.dtype, chosen: str) -> None:
    """Another document before it, or none: the gradients are bit-equal."""
    first, second = 83, 411
    position = torch.cat([torch.arange(first), torch.arange(second)])[None]
    parts = [draw(1, first + second, n, 32, seed=seed) for seed, n in enumerate((4, 1, 1, 4))]

    def run(at: slice, scale: float) -> list[Tensor]:
        scaled = [torch.cat([t[:, :first] * scale, t[:, first:]], 1)[:, at] for t in parts]
        *inputs, weighting = (t.to(dtype).requires_grad_() for t in scaled)
        window = ops.plan_window(position[:, at], 130, None)
        y, _ = ops.local_attention(inputs[0], inputs[1], inputs[2], window)
        grads = torch.autograd.grad(y, inputs, weighting)
        return [t[:, -second:] for t in (y.detach(), *grads)]

    with ops.use("native"), native.instruction_set(chosen):
        alone = run(slice(first, None), 1)
        for scale in (1.0, -3.0):
            for a, b in zip(run(slice(None), scale), alone, strict=True):
                assert torch.equal(a, b)


def test_a_ring_of_another_type_gets_its_gradient() -> None:
    call = Call(40, 16, True, (4, 1, 32))
    window = ops.plan_window(call.position, call.size, call.before)
    grads = []
    for dtype in (torch.float32, torch.bfloat16):
        q, k, v = (t.bfloat16() for t in call.inputs[:3])
        ring = [t.to(dtype).requires_grad_() for t in call.inputs[3:]]
        with ops.use("native"):
            y, _ = ops.local_attention(q, k, v, window, (ring[0], ring[1]))
        grads.append(torch.autograd.grad(y, ring, call.weighting.bfloat16()))
        assert all(g.dtype == dtype for g in grads[-1])
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a.bfloat16(), b)


def test_memory_grows_with_the_tokens() -> None:
    """No tensor, kept or made on the way, is larger than the queries."""
    kept: dict[int, int] = {}
    made: dict[int, int] = {}

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for t in tree_leaves(out):
                if isinstance(t, Tensor):
                    made[steps] = max(made[steps], t.untyped_storage().nbytes())
            return out

    def keep(t: Tensor) -> Tensor:
        kept[steps] += t.untyped_storage().nbytes()
        return t

    for steps in (1500, 3000):
        kept[steps] = made[steps] = 0
        q, k, v = (draw(1, steps, n, 8, seed=n).float().requires_grad_() for n in (4, 1, 1))
        window = ops.plan_window(torch.arange(steps)[None], 1024, None)
        with saved_tensors_hooks(keep, lambda t: t), Watch(), ops.use("native"):
            ops.local_attention(q, k, v, window)[0].sum().backward()
        assert made[steps] <= q.nbytes
    assert kept[3000] <= 2 * kept[1500]


def test_operators_are_well_formed() -> None:
    call = Call(20, 6, True, (4, 2, 8))
    leaves = [t.float().requires_grad_() for t in call.inputs]
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    operator = torch.ops.griffin.attention_for_gradient.default
    torch.library.opcheck(operator, (*leaves, call.position, 6), test_utils=checks)
    position = positions(20, 0)
    torch.library.opcheck(operator, (*leaves[:3], None, None, position, 6), test_utils=checks)
    inputs = [t.detach() for t in leaves]
    y, lse = operator(*inputs, call.position, 6)
    for into_ring in (False, True):
        args = (*inputs, call.position, 6, y, lse, call.weighting.float(), into_ring)
        torch.library.opcheck(
            torch.ops.griffin.attention_backward.default, args, test_utils=checks[:2]
        )


def test_compiled_training_agrees() -> None:
    call = Call(70, 30, False, (4, 1, 16))
    window = ops.plan_window(call.position, call.size, None)

    def loss(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (ops.local_attention(q, k, v, window)[0] * call.weighting.float()).sum()

    results = []
    for run in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        inputs = [t.float().requires_grad_() for t in call.inputs]
        results.append(torch.autograd.grad(run(*inputs), inputs))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
