"""RMSNorm, rotary embedding and dispatch against formulas of their own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from griffin import ops
from griffin.ops import native


def test_rms_norm_of_known_values() -> None:
    """The values DeepMind's own test expects of [0.1, 0.2]."""
    out = ops.rms_norm(torch.tensor([0.1, 0.2]), torch.zeros(2), 1e-6)
    torch.testing.assert_close(out, torch.tensor([0.6324429, 1.2648858]), rtol=1e-6, atol=0)


def test_rms_norm_rounds_bfloat16_once() -> None:
    x = torch.randn(3, 2560, generator=torch.Generator().manual_seed(0)).bfloat16()
    weight = torch.randn(2560, generator=torch.Generator().manual_seed(1)).bfloat16()
    exact = ops.rms_norm(x.double(), weight.double(), 1e-6)
    wide = ops.rms_norm(x.float(), weight.float(), 1e-6)
    torch.testing.assert_close(wide.double(), exact, rtol=1e-5, atol=1e-6)
    assert torch.equal(ops.rms_norm(x, weight, 1e-6), wide.bfloat16())


@pytest.mark.parametrize("position", [0, 1, 77, 2**24 + 1, 2**40 + 12345])
def test_rope_turns_pairs_by_exact_angles(position: int) -> None:
    """Each pair is a complex number turned by position * theta^(-2j / width): here exact in
    float64."""
    head, width, theta = 16, 8, 16.0  # frequencies 1, 1/2, 1/4, 1/8
    x = torch.randn(1, 1, 2, head, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = ops.rope_table(torch.tensor([[position]]), width, theta, torch.float64)
    turned = ops.apply_rope(x, table)
    for j in range(width // 2):
        turn = complex(math.cos(position / 2**j), math.sin(position / 2**j))
        for n in range(2):
            pair = complex(x[0, 0, n, j], x[0, 0, n, j + width // 2]) * turn
            found = complex(turned[0, 0, n, j], turned[0, 0, n, j + width // 2])
            assert abs(found - pair) < 1e-9
    assert torch.equal(turned[..., width:], x[..., width:])


@pytest.mark.skipif(not native.built(), reason="the native kernels are not built")
@pytest.mark.parametrize("rows", [1, 3], ids=["one table for all", "a table a row"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_rope_in_training_keeps_the_table_alone(dtype: torch.dtype, rows: int) -> None:
    """Native values and gradients are the formula's; no x is kept."""
    generator = torch.Generator().manual_seed(0)
    holder = torch.randn(3, 7, 2, 12, generator=generator, dtype=torch.float64).to(dtype)
    weighting = torch.randn(3, 7, 2, 6, generator=generator, dtype=torch.float64)
    table = ops.rope_table(torch.arange(7).repeat(rows, 1) + 50, 4, 100.0, dtype)
    kept: list[Tensor] = []

    def keep(t: Tensor) -> Tensor:
        kept.append(t)
        return t

    def run(implementation: str) -> list[Tensor]:
        kept.clear()
        x = holder[..., ::2].detach().requires_grad_()
        with ops.use(implementation), saved_tensors_hooks(keep, lambda t: t):
            y = ops.apply_rope(x, table)
        return [y.detach(), *torch.autograd.grad(y, x, weighting.to(dtype))]

    expected, actual = run("eager"), run("native")
    near = 3e-2 if dtype is torch.bfloat16 else 1e-6
    for got, want in zip(actual, expected, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, want, rtol=0, atol=near)
    assert kept and all(t.shape[-1] == 2 for t in kept)


@pytest.mark.skipif(not native.built(), reason="the native kernels are not built")
def test_rope_in_training_equals_finite_differences() -> None:
    x = torch.randn(2, 3, 2, 6, dtype=torch.float64, requires_grad=True)
    table = ops.rope_table(torch.arange(3).repeat(2, 1), 4, 100.0, torch.float64)
    with ops.use("native"):
        assert torch.autograd.gradcheck(lambda x: ops.apply_rope(x, table), x)
        assert torch.autograd.gradgradcheck(lambda x: ops.apply_rope(x, table), x)


def test_use_forces_an_implementation_and_gives_it_back() -> None:
    before = ops.describe()
    with ops.use("reference"):
        forced = ops.describe()
    del forced["native kernels"], forced["kernels on a GPU"]  # what is installed, not what runs
    assert set(forced.values()) == {"reference"}
    assert ops.describe() == before and "reference" not in before.values()
    with pytest.raises(ValueError, match="no implementation 'refrence'"), ops.use("refrence"):
        pass


def test_shapes_that_do_not_fit_are_named() -> None:
    x = torch.zeros(2, 3, 4)
    position = torch.arange(3).expand(2, 3)
    with pytest.raises(ValueError, match="x and a must be equal"):
        ops.linear_scan(x, torch.zeros(2, 3, 5))
    with pytest.raises(ValueError, match="h0 must be"):
        ops.linear_scan(x, x, torch.zeros(2, 5))
    with pytest.raises(ValueError, match="weight, bias must be"):
        ops.causal_conv(x, torch.zeros(5, 1, 4), torch.zeros(5), position)
    with pytest.raises(ValueError, match="segment_pos must be"):
        ops.causal_conv(x, torch.zeros(4, 1, 4), torch.zeros(4), position[:1])
    window = ops.plan_window(position, 8, None)
    with pytest.raises(ValueError, match="do not match"):
        ops.local_attention(
            torch.zeros(2, 3, 4, 6), torch.zeros(2, 3, 3, 6), torch.zeros(2, 3, 3, 6), window
        )
    with pytest.raises(ValueError, match="needs its ring"):
        q = torch.zeros(2, 3, 1, 6)
        ops.local_attention(q, q, q, ops.plan_window(position, 8, torch.zeros(2).long()))
