"""A matrix behind its preview: exact where it is largest, in the same bits as whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from griffin import ops
from griffin.ops import Packed, native, pack, packed_linear, screened_linear
from griffin.ops.packed_linear import upper_bits

SETS = native.instruction_sets()
PREVIEWS = {"two bits": upper_bits, "three bits": lambda packed: packed}
IMPLEMENTATIONS = ["reference", "eager", *(f"native {name}" for name in SETS)]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def run(implementation: str, x: Tensor, preview: Packed, packed: Packed, panels: int) -> Tensor:
    name, _, chosen = implementation.partition(" ")
    with ops.use(name), native.instruction_set(chosen or (SETS or [""])[0]):
        return screened_linear(x, preview, packed, panels)


def largest(y: Tensor, panels: int) -> list[int]:
    """Return the outputs (O,) that lie in the panels with the largest of them."""
    order = sorted(range(0, len(y), 16), key=lambda at: (-float(y[at : at + 16].max()), at))
    return [at + k for at in sorted(order[:panels]) for k in range(16) if at + k < len(y)]


needs_native = pytest.mark.skipif(not native.built(), reason="the native kernels are not built")


@needs_native
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bits", PREVIEWS)
@pytest.mark.parametrize("format", ["bf16", "int8", "int4"])
def test_the_best_are_exact_and_the_others_previews(
    format: str, bits: str, dtype: torch.dtype, implementation: str
) -> None:
    weight, x = draw(203, 100), draw(7, 100, seed=1, dtype=dtype)
    preview, packed = PREVIEWS[bits](pack(weight, "int3")), pack(weight, format)
    for panels in (1, 3, 12):
        got = run(implementation, x, preview, packed, panels)
        name, _, chosen = implementation.partition(" ")
        with ops.use(name), native.instruction_set(chosen or SETS[0]):
            rough = packed_linear(x, preview, None, torch.float32)
            exact = packed_linear(x, packed, None, torch.float32)
        assert got.shape == (7, 203) and got.dtype == torch.float32
        for row in range(7):
            best = largest(rough[row], panels)
            others = [k for k in range(203) if k not in best]
            assert torch.equal(got[row, others], rough[row, others])
            # torch's own products give a row other bits in other company.
            close = 1e-4 if name == "reference" or chosen else 0.1
            torch.testing.assert_close(got[row, best], exact[row, best], rtol=0, atol=close)
            assert not chosen or torch.equal(got[row, best], exact[row, best])


@needs_native
@pytest.mark.parametrize("chosen", SETS)
def test_two_bits_of_three_are_read_where_they_lie(chosen: str) -> None:
    packed, x = pack(draw(63, 500), "int3"), draw(9, 500, seed=1)
    upper = upper_bits(packed)
    with native.instruction_set(chosen):
        apart = packed_linear(x, upper)
        assert torch.equal(apart, packed_linear(x, upper._replace(data=upper.data.clone())))
        assert not torch.equal(apart, packed_linear(x, packed))


@needs_native
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_with_all_panels_it_is_the_matrix_itself(implementation: str) -> None:
    weight, x = draw(50, 40), draw(2, 3, 40, seed=1)
    packed = pack(weight, "int8")
    name, _, chosen = implementation.partition(" ")
    with ops.use(name), native.instruction_set(chosen or SETS[0]):
        whole = packed_linear(x, packed)
    got = run(implementation, x, pack(draw(50, 40, seed=5), "int2"), packed, 99)
    assert got.shape == (2, 3, 50)
    torch.testing.assert_close(got, whole, rtol=1e-5, atol=1e-5)


@needs_native
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_of_equal_panels_the_first_are_taken(implementation: str) -> None:
    weight = torch.zeros(64, 32)
    weight[[5, 20, 40]] = 1  # a preview of zeros says nothing of the fourth panel alone
    got = run(implementation, torch.ones(1, 32), pack(weight, "int2"), pack(2 * weight, "int8"), 2)
    assert got[0, [5, 20, 40]].tolist() == pytest.approx([64, 64, 32], rel=1e-3)


@needs_native
@pytest.mark.parametrize("chosen", SETS)
@pytest.mark.parametrize("bits", PREVIEWS)
@pytest.mark.parametrize("format", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_and_threads_do_not_change_a_bit(
    format: str, bits: str, chosen: str, dtype: torch.dtype, threads: None
) -> None:
    weight, x = draw(400, 192), draw(40, 192, seed=2, dtype=dtype)
    matrices = PREVIEWS[bits](pack(weight, "int3")), pack(weight, format)
    with native.instruction_set(chosen):
        torch.set_num_threads(1)
        whole = screened_linear(x, *matrices, 5)
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for rows in (*range(1, 10), 17, 40):
                assert torch.equal(screened_linear(x[:rows], *matrices, 5), whole[:rows])
            assert torch.equal(screened_linear(x[7], *matrices, 5), whole[7])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_is_not_a_number_stays_so(implementation: str) -> None:
    weight, x = draw(64, 40), draw(2, 40)
    x[1, 3] = torch.nan
    got = run(implementation, x, pack(weight, "int2"), pack(weight, "int8"), 2)
    assert torch.isnan(got[1]).all() and torch.isfinite(got[0]).all()


def test_it_has_no_gradient_and_takes_no_rows() -> None:
    matrices = pack(draw(32, 40), "int2"), pack(draw(32, 40), "int8")
    x = draw(1, 40).requires_grad_()
    assert not screened_linear(x, *matrices, 1).requires_grad
    assert screened_linear(x[:0], *matrices, 1).shape == (0, 32)


def test_refusals_say_why() -> None:
    packed, x = pack(draw(32, 40), "int8"), draw(1, 40)
    with pytest.raises(ValueError, match=r"a preview \(16, 40\) is none of a matrix \(32, 40\)"):
        screened_linear(x, pack(draw(16, 40), "int2"), packed, 1)
    with pytest.raises(ValueError, match="40 inputs"):
        screened_linear(x[:, :39], pack(draw(32, 40), "int2"), packed, 1)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        screened_linear(x, pack(draw(32, 40), "int2"), packed, 0)
