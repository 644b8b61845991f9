"""The compiled kernels as inference calls them: every instruction set, any cut, any number of
threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from griffin import ops
from griffin.ops import native
from griffin.ops.rg_lru import Gate

pytestmark = pytest.mark.skipif(not native.built(), reason="the native kernels are not built")
SETS = native.instruction_sets()
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 1.6e-2}
Call = Callable[[Tensor, "list[Tensor]"], "tuple[Tensor, list[Tensor]]"]


def test_every_set_of_the_machine_is_compiled():
    """Or what is asserted here of all sets is of some: `make kernels` compiles the others."""
    assert native.not_compiled() == []
    assert native.module().of_machine() == SETS
    assert set(native.module().compiled()) >= set(SETS)


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def positions(rows: int, steps: int, pads: int = 3) -> Tensor:
    """Row 0 goes on from 5, row 1 starts documents, the last row is padded first."""
    out = torch.arange(5, 5 + steps).repeat(rows, 1)
    if steps > 4:
        out[1, 3:] -= int(out[1, 3])
    out[-1, : min(pads, steps)] = -1
    out[-1, min(pads, steps) :] -= pads
    return out


class Sequence:
    """One op over (2 + 1 rows, T, E) inputs whose state can be carried from call to call."""

    def __init__(self, op: str, width: int, dtype: torch.dtype) -> None:
        self.op, self.width, self.dtype = op, width, dtype
        wide = torch.promote_types(dtype, torch.float32)
        state = draw(3, width, seed=9, dtype=wide)
        self.state = draw(3, 3, width, seed=9, dtype=dtype) if op == "causal_conv" else state

    def __call__(self, x: Tensor, segment_pos: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if self.op == "linear_scan":
            a = torch.sigmoid(3 + x.float()).to(x.dtype) * (segment_pos != 0)[..., None]
            return ops.linear_scan(x, a, state)
        if self.op == "causal_conv":
            weight, bias = (
                draw(self.width, 1, 4, seed=1, dtype=x.dtype),
                draw(self.width, seed=2, dtype=x.dtype),
            )
            return ops.causal_conv(x, weight, bias, segment_pos, state)
        blocks, size = 3, self.width // 3
        weights = [draw(blocks, size, size, seed=n, dtype=x.dtype) for n in (1, 3)]
        biases = [draw(blocks, size, seed=n, dtype=x.dtype) for n in (2, 4)]
        first, second = map(Gate, weights, biases)
        param = draw(self.width, seed=5, dtype=x.dtype) - 2
        return ops.rg_lru(x, first, second, param, segment_pos, state)


OPS = ["linear_scan", "causal_conv", "rg_lru"]


def assert_close(got: Tensor, want: Tensor, what: str) -> None:
    assert got.dtype == want.dtype
    scale = want.abs().max().item() + 1e-9
    worst = (got - want).abs().max().item()
    assert worst <= TOLERANCE[want.dtype] * scale, f"{what}: {worst:.3g} of {scale:.3g}"


@pytest.mark.sweep
@pytest.mark.parametrize("chosen", SETS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("width", [3, 51, 192, 198])
@pytest.mark.parametrize("op", OPS)
def test_sequences_equal_the_reference(
    op: str, width: int, dtype: torch.dtype, chosen: str
) -> None:
    run = Sequence(op, width, dtype)
    for steps in (1, 2, 7, 40):
        x, segment_pos = draw(3, steps, width, seed=0, dtype=dtype), positions(3, steps)
        with ops.use("reference"):
            want = run(x, segment_pos, run.state)
        with ops.use("native"), native.instruction_set(chosen):
            got = run(x, segment_pos, run.state)
        for a, b in zip(got, want, strict=True):
            assert_close(a, b, f"{op} over {steps} steps")


@pytest.mark.sweep
@pytest.mark.parametrize("chosen", SETS)
# Gates of 34, 64 and 256 inputs: the latter fill tiles.
@pytest.mark.parametrize("width", [102, 192, 768])
@pytest.mark.parametrize("op", OPS)
def test_cuts_threads_and_company_do_not_change_a_bit(
    op: str, width: int, chosen: str, threads: None
) -> None:
    run = Sequence(op, width, torch.bfloat16)
    x, segment_pos = draw(3, 67, width, seed=0, dtype=torch.bfloat16), positions(3, 67)
    with native.instruction_set(chosen):
        torch.set_num_threads(1)
        whole, end = run(x, segment_pos, run.state)
        for count, cut in ((1, 1), (2, 5), (3, 30), (3, 67)):
            torch.set_num_threads(count)
            state, parts = run.state, []
            for first in range(0, 67, cut):
                at = slice(first, first + cut)
                part, state = run(x[:, at], segment_pos[:, at], state)
                parts.append(part)
            assert torch.equal(torch.cat(parts, 1), whole), (count, cut)
            assert torch.equal(state, end)
        for row in range(3):
            at = slice(row, row + 1)
            alone, last = run(x[at], segment_pos[at], run.state[at])
            assert torch.equal(alone[0], whole[row])
            assert torch.equal(last[0], end[row])


class Attention:
    """Tokens of some rows with a ring behind them, which may be read in any cut."""

    def __init__(
        self, steps: int, heads: int, kv: int, width: int, size: int, dtype: torch.dtype
    ) -> None:
        rows = 5
        self.size = size
        self.q = draw(rows, steps, heads, width, seed=0, dtype=dtype)
        self.k, self.v = (draw(rows, steps, kv, width, seed=n, dtype=dtype) for n in (1, 2))
        self.ring = tuple(draw(rows, size, kv, width, seed=n, dtype=dtype) for n in (3, 4))
        self.before = torch.tensor([size + 7, 3, 0, size, 5])
        self.position = self.before[:, None] + torch.arange(steps)
        self.position[4] = torch.arange(steps)  # a document that starts sees nothing of the ring
        if steps > 4:
            self.position[1] = torch.tensor([3, 4, *range(steps - 2)])  # one ends, another begins

    def __call__(self, first: int = 0, last: int | None = None, cut: int = 10**6) -> Tensor:
        ring, before, parts = self.ring, self.before, []
        end = self.q.shape[1] if last is None else last
        for at in range(first, end, cut):
            piece = slice(at, min(at + cut, end))
            segment_pos = self.position[:, piece]
            window = ops.plan_window(segment_pos, self.size, before)
            new = self.q[:, piece], self.k[:, piece], self.v[:, piece]
            y, ring = ops.local_attention(*new, window, ring)
            before = segment_pos[:, -1] + 1
            parts.append(y)
        return torch.cat(parts, 1)


# (N, K, H, S); the third is laid out in pairs of bfloat16 where the machine multiplies them.
HEADS = [
    (2, 1, 8, 5),
    (4, 4, 6, 16),
    (10, 1, 64, 300),
    (7, 1, 33, 129),
    (12, 2, 20, 40),
    (13, 1, 32, 256),
    (40, 2, 32, 100),
]


@pytest.mark.sweep
@pytest.mark.parametrize("chosen", SETS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", HEADS)
def test_attention_equals_the_reference(
    shape: tuple[int, int, int, int], dtype: torch.dtype, chosen: str
) -> None:
    for steps in (1, 2, 9, 40):
        attend = Attention(steps, *shape, dtype)
        with ops.use("reference"):
            want = attend()
        with ops.use("native"), native.instruction_set(chosen):
            assert_close(attend(), want, f"attention of {steps} steps")


@pytest.mark.sweep
@pytest.mark.parametrize("chosen", SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", HEADS)
def test_attention_does_not_feel_cuts_and_threads(
    shape: tuple[int, int, int, int], dtype: torch.dtype, chosen: str, threads: None
) -> None:
    attend = Attention(150, *shape, dtype)
    with ops.use("native"), native.instruction_set(chosen):
        torch.set_num_threads(1)
        whole = attend()
        for count, cut in ((2, 1), (3, 4), (2, 31), (3, 10**6)):
            torch.set_num_threads(count)
            assert torch.equal(attend(cut=cut), whole), (count, cut)


def test_attention_of_pads_and_of_many_documents() -> None:
    q, k, v = (draw(2, 12, n, 32, seed=n) for n in (4, 1, 1))
    position = torch.tensor([[-3, -2, -1, *range(9)], [0, 0, 1, 0, 1, 2, 0, 1, 2, 3, 0, 0]])
    window = ops.plan_window(position, 4, None)
    results = []
    for name in ("reference", "native"):
        with ops.use(name):
            results.append(ops.local_attention(q, k, v, window)[0])
    assert_close(results[1], results[0], "attention")


def test_largest_scores_do_not_overflow() -> None:
    q = torch.full((1, 1, 2, 8), 300.0)
    ring = (torch.full((1, 4, 1, 8), 300.0), torch.ones(1, 4, 1, 8))
    before = torch.tensor([9])
    window = ops.plan_window(before[:, None], 4, before)
    y, _ = ops.local_attention(q, -q[:, :, :1], torch.zeros(1, 1, 1, 8), window, ring)
    assert torch.equal(y, torch.ones_like(y))


@pytest.mark.parametrize("chosen", SETS)
def test_saturated_gates_are_exact(chosen: str) -> None:
    """Gates far out: sigmoid is 0 or 1, never NaN, and h of a closed input gate decays to
    nothing."""
    x = torch.tensor([[[1e4, -1e4, 0.0, 1.0]]])
    gate = Gate(torch.eye(4)[None], torch.zeros(1, 4))
    with native.instruction_set(chosen), torch.no_grad():
        h, _ = ops.rg_lru(
            x, gate, gate, torch.full((4,), 30.0), torch.tensor([[7]]), torch.full((1, 4), 2.0)
        )
    assert torch.isfinite(h).all()
    # r = 1: a = exp(-240) = 0; r = 0: a = 1, and the closed input gate adds nothing
    assert h[0, 0, 0] == 1e4
    assert h[0, 0, 1] == 2


def test_dispatch_takes_the_kernels_where_they_fit() -> None:
    described = ops.describe()
    assert all(described[op] == "native" for op in (*OPS, "local_attention", "packed_linear"))
    assert SETS[0] in described["native kernels"]
    assert SETS[-1] == "portable"
    with ops.use("eager"):
        assert ops.describe()["rg_lru"] == "eager"
    with pytest.raises(ValueError, match="portable"), native.instruction_set("abacus"):
        pass
    with pytest.raises(ValueError, match="float32, bfloat16 or float64"), ops.use("native"):
        x = torch.ones(1, 2, 3, dtype=torch.float16)
        ops.linear_scan(x, x)


def test_limits_are_those_of_the_kernels() -> None:
    for name in ("LARGEST_GATE", "MOST_TAPS", "KEPT_STEPS", "MOST_QUERIES", "LARGEST_HEAD"):
        assert getattr(native, name) == getattr(native.module(), name.lower())


def test_operators_are_well_formed() -> None:
    griffin = torch.ops.griffin
    x, a, h0 = draw(2, 5, 6, seed=0), torch.rand(2, 5, 6), draw(2, 6, seed=1)
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    leaves = [t.requires_grad_() for t in (x, a, h0)]
    torch.library.opcheck(griffin.linear_scan.default, (*leaves, True), test_utils=checks)
    pos, param = positions(2, 5), draw(6, seed=2).requires_grad_()
    torch.library.opcheck(
        griffin.rg_lru_of_gates.default, (x, a, a, param, pos, h0), test_utils=checks
    )
    weight, bias = draw(2, 3, 3, seed=3), draw(2, 3, seed=4)
    x, h0, param = x.detach(), h0.detach(), param.detach()
    torch.library.opcheck(griffin.rg_lru.default, (x, weight, bias, weight, bias, param, pos, h0))
    taps, cache = draw(6, 1, 4, seed=5), draw(2, 3, 6, seed=6)
    torch.library.opcheck(griffin.causal_conv.default, (x, taps, draw(6, seed=7), pos, cache))
    q, ring = draw(2, 1, 2, 4, seed=8), draw(2, 3, 1, 4, seed=9)
    args = (q, q[:, :, :1], q[:, :, :1], ring, ring, torch.tensor([[5], [5]]), 3)
    torch.library.opcheck(griffin.window_attention.default, args)


def test_compiled_and_plain_calls_agree() -> None:
    gate = Gate(draw(3, 17, 17, seed=1), draw(3, 17, seed=2))
    packed, param, h0 = (
        ops.pack(draw(51, 51, seed=3), "int8"),
        draw(51, seed=5),
        draw(3, 51, seed=6),
    )
    segment_pos = positions(3, 9)

    def block(x: Tensor) -> Tensor:
        x, _ = ops.causal_conv(ops.packed_linear(x, packed), taps, bias, segment_pos)
        h, _ = ops.rg_lru(x, gate, gate, param, segment_pos, h0)
        return h * 2

    taps, bias = draw(51, 1, 4, seed=7), draw(51, seed=8)
    x = draw(3, 9, 51, seed=0)
    assert torch.equal(torch.compile(block, backend="aot_eager", fullgraph=True)(x), block(x))


def test_python_threads_may_call_at_once(threads: None) -> None:
    torch.set_num_threads(2)
    packed, x = ops.pack(draw(640, 128, seed=0), "int8"), draw(3, 128, seed=1)
    want = ops.packed_linear(x, packed)
    right: list[bool] = []

    def call() -> None:
        right.extend(torch.equal(ops.packed_linear(x, packed), want) for _ in range(50))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert right == [True] * 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_threads_of_its_own(threads: None) -> None:
    torch.set_num_threads(3)
    packed, x = ops.pack(draw(640, 128, seed=0), "int8"), draw(1, 128, seed=1)
    want = ops.packed_linear(x, packed)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(ops.packed_linear(x, packed), want) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_read_rate_counts_what_was_read() -> None:
    assert native.read_rate(torch.ones(1 << 20), 1) > 1e8
    with pytest.raises(ValueError, match="contiguous"):
        native.read_rate(torch.ones(64, 64).T, 1)
