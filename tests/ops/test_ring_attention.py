"""Attention to the ring as it lies: the Triton kernel and the reference, and local_attention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from griffin import ops
from griffin.ops.launching import counters
from griffin.ops.ring_attention import triton as kernels
from tests.ops.step_launches import ring_attention
from tests.ops.test_twins import draw
from tests.support.triton import TOLERANCE, error, interpreted, poisoned

__all__ = ["interpreted", "poisoned"]
pytestmark = pytest.mark.usefixtures("interpreted")

# Tokens, heads of queries and of keys, their width, slots. Of the last the queries are two tiles,
# over three parts and over one.
SHAPES = [(1, 5, 1, 24, 40), (3, 4, 2, 16, 70), (3, 6, 1, 16, 70), (5, 4, 1, 16, 20)]


@pytest.fixture
def small_parts(monkeypatch):
    """Cut rings of a few slots into several parts."""
    monkeypatch.setattr(kernels, "PART", 32)
    monkeypatch.setattr(kernels, "_STEP", 16)


def operands(
    rows: int, shape: tuple[int, ...], dtype: torch.dtype, positions: list[int] | None = None
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """Return tokens, ring, positions and turns; what was never written of a ring is NaN."""
    steps, heads, groups, head, slots = shape
    qkv = draw(rows, steps, (heads + 2 * groups) * head, dtype=dtype, seed=0).detach()
    ring = [draw(rows, slots, groups, head, dtype=dtype, seed=s).detach() for s in (1, 2)]
    few = positions or [0, slots - 1, 1_234_567]
    pos = torch.tensor([few[i % len(few)] for i in range(rows)])
    for b in range(rows):
        for each in ring:
            each[b, pos[b] :] = torch.nan
    return qkv, ring, pos, ops.rope_turns(head // 2, 10_000.0)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_rings(shape, dtype, poisoned, small_parts):
    qkv, ring, pos, turns = operands(3, shape, dtype)
    wide = [each.double() for each in ring]
    with ops.use("triton"):
        got = ops.ring_attention(qkv, ring[0], ring[1], pos, turns)
    with ops.use("reference"):
        want = ops.ring_attention(qkv.double(), wide[0], wide[1], pos, turns)
    assert got.dtype == dtype and not counters(qkv).any()
    assert error(got, want) <= TOLERANCE[dtype]
    for mine, truth in zip(ring, wide, strict=True):
        assert torch.equal(mine.isnan(), truth.isnan())
        assert error(mine.nan_to_num(0), truth.nan_to_num(0)) <= TOLERANCE[dtype]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("steps", range(1, 9))
@pytest.mark.parametrize("shape", [(10, 1, 32, 64), (6, 3, 20, 33), (2, 2, 64, 8)], ids=str)
def test_many_values_and_rings(steps, shape, dtype, poisoned, small_parts):
    test_values_and_rings((steps, *shape), dtype, poisoned, small_parts)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_the_reference_is_local_attention(steps, dtype):
    qkv, ring, pos, turns = operands(3, (steps, 6, 2, 16, 13), dtype, [0, 40, 12_345])
    ring = [each.nan_to_num(0) for each in ring]
    position = pos[:, None] + torch.arange(steps)
    window = ops.plan_window(position, 13, pos, True)
    table = ops.rope_table(position, 8, 10_000.0, dtype)
    q, k, v = qkv.unflatten(2, (-1, 16)).split([6, 2, 2], 2)
    q, k = (ops.apply_rope(each, table) for each in (q, k))
    want, after = ops.local_attention(q, k, v, window, (ring[0].clone(), ring[1].clone()))
    got = ops.ring_attention(qkv, ring[0], ring[1], pos, turns)
    most = 1e-9 if dtype == torch.float64 else 2e-6  # float64 rounds the angle itself
    assert torch.allclose(got, want.flatten(2), rtol=most, atol=most)
    for mine, truth in zip(ring, after, strict=True):
        assert torch.allclose(mine, truth, rtol=most, atol=most)


def test_a_row_has_the_same_bits_in_any_company(small_parts):
    shape = (1, 2, 1, 16, 40)
    qkv, ring, pos, turns = operands(64, shape, torch.float32, [0, 7, 39, 40, 99])
    results = []
    for rows in (1, 37, 64):
        own = [each.clone() for each in ring]
        with ops.use("triton"):
            live = torch.tensor([rows], dtype=torch.int32)
            results.append((ops.ring_attention(qkv, own[0], own[1], pos, turns, live)[:rows], own))
    (first, _), (some, few), (every, all) = results
    assert torch.equal(first, every[:1]) and torch.equal(some, every[:37])
    assert torch.equal(few[0][:37].nan_to_num(), all[0][:37].nan_to_num())
    for mine, before in zip(few, ring, strict=True):
        assert torch.equal(mine[37:].nan_to_num(), before[37:].nan_to_num())


def test_what_does_not_fit_is_refused():
    qkv, ring, pos, turns = operands(2, (1, 4, 2, 16, 9), torch.float32)
    good = {"qkv": qkv, "keys": ring[0], "values": ring[1], "pos": pos, "turns": turns}
    for wrong in (
        {"qkv": qkv[0]},
        {"qkv": qkv.expand(2, 9, -1)},
        {"qkv": qkv[..., :-1]},
        {"keys": ring[0][:1]},
        {"pos": pos.int()},
        {"turns": turns.repeat(4)},
        {"out": torch.zeros(2, 1, 3)},
    ):
        with pytest.raises(ValueError, match=r"must be|do not fit"):
            ops.ring_attention(**{**good, **wrong})


def test_turns_are_exact_where_float64_is_not():
    """The angle of a pair at 2^52 tokens, with whole numbers of any length."""
    at, turns = 2**52 + 1, ops.rope_turns(8, 10_000.0)
    assert turns[0] == 2935890503282001226  # 2^64 / (2 pi)
    assert int(turns[2]) == pytest.approx(2**64 / (2 * torch.pi * 100), rel=1e-15)
    part = (at * int(turns[0])) % 2**64
    assert int(torch.tensor(at) * turns[0]) % 2**64 == part


def test_little_but_the_ring_is_moved():
    (one, _) = ring_attention()
    ring = 4 * 2048 * 2 * 256 * 2
    assert ring < one.moved < 1.1 * ring
    assert one.grid == (8, 1, 4)  # cut by the ring's size
