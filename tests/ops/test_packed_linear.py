"""Packed weights: what packing keeps, and every implementation and instruction set against the
reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils import deterministic

from griffin import ops
from griffin.ops import native
from griffin.ops.packed_linear import (
    LAYOUTS,
    get_layout,
    gradient,
    pack,
    pack_int2,
    pack_int3,
    pack_int4,
    pack_int8,
    unpack,
    upper_bits,
)
from griffin.ops.packed_linear.int8 import LONGEST
from tests.support.largest import Largest

needs_native = pytest.mark.skipif(not native.built(), reason="the native kernels are not built")
SHAPES = [(1, 1), (16, 64), (17, 33), (40, 128), (63, 500), (5, 1000)]
SETS = native.instruction_sets()
# Error of a product relative to its largest value: int8's activations have 16 bits, sums are
# float32.
CLOSE = 1e-4


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_bf16_packs_exactly(shape: tuple[int, int]) -> None:
    weight = draw(*shape, dtype=torch.bfloat16)
    assert torch.equal(unpack(pack(weight, "bf16"), torch.bfloat16), weight)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("format", ["int8", "int4"])
def test_integers_are_within_half_a_step(format: str, shape: tuple[int, int]) -> None:
    weight = draw(*shape)
    error = (unpack(pack(weight, format)) - weight).abs()
    if format == "int8":
        step = weight.abs().amax(1, keepdim=True) / 127
    else:
        groups = torch.nn.functional.pad(weight, (0, -shape[1] % 32)).unflatten(1, (-1, 32))
        # It reaches 7 steps on one side, so its far end can be a whole step off.
        step = groups.abs().amax(2) / 4
        step = step.repeat_interleave(32, 1)[:, : shape[1]]
    assert (error <= step * 0.51 + 1e-3 * weight.abs().max()).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_int4_keeps_every_value(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.randint(16, shape, generator=generator, dtype=torch.uint8)
    groups = (shape[0], -(-shape[1] // 32))
    scale = (torch.rand(groups, generator=generator) + 0.5).half()
    wide = scale.float().repeat_interleave(32, 1)[:, : shape[1]]
    assert torch.equal(unpack(pack_int4(values, scale)), (values.float() - 8) * wide)


@pytest.mark.parametrize("shape", SHAPES)
def test_int2_keeps_every_value(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.randint(4, shape, generator=generator, dtype=torch.uint8)
    scale = (torch.rand((shape[0], -(-shape[1] // 32)), generator=generator) + 0.5).half()
    wide = scale.float().repeat_interleave(32, 1)[:, : shape[1]]
    assert torch.equal(unpack(pack_int2(values, scale)), (2 * values.float() - 3) * wide)


@pytest.mark.parametrize("shape", SHAPES)
def test_int3_is_int2_and_a_bit_more(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.randint(8, shape, generator=generator, dtype=torch.uint8)
    scale = (torch.rand((shape[0], -(-shape[1] // 32)), generator=generator) + 0.5).half()
    wide = scale.float().repeat_interleave(32, 1)[:, : shape[1]]
    packed = pack_int3(values, scale)
    assert torch.equal(unpack(packed), (values.float() - 3.5) * wide)
    upper = upper_bits(packed)
    assert upper.data.data_ptr() == packed.data.data_ptr(), "the same memory"
    assert torch.equal(upper.data, pack_int2(values // 2, scale).data)
    assert packed.low is not None and packed.nbytes == upper.nbytes + packed.low.nbytes
    for data in (packed.data, packed.low):
        assert data.is_contiguous(), "a gap between panels halves the rate they are read at"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("format", "steps"), [("int2", torch.tensor([-3.0, -1, 1, 3])), ("int3", torch.arange(8) - 3.5)]
)
def test_the_nearest_value_is_taken(format: str, steps: Tensor, shape: tuple[int, int]) -> None:
    weight = draw(*shape)
    groups = torch.nn.functional.pad(weight, (0, -shape[1] % 32)).unflatten(1, (-1, 32))
    scale = (groups.abs().amax(2) / steps.max()).half().float()
    choices = scale.repeat_interleave(32, 1)[:, : shape[1], None] * steps
    least = (choices - weight[..., None]).abs().amin(2)
    assert torch.allclose((unpack(pack(weight, format)) - weight).abs(), least)


@pytest.mark.parametrize("format", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("implementation", ["eager", *(f"native {name}" for name in SETS)])
def test_twins(
    format: str, shape: tuple[int, int], dtype: torch.dtype, implementation: str
) -> None:
    packed, bias = pack(draw(*shape), format), draw(shape[0], seed=2, dtype=dtype)
    x = draw(19, shape[1], seed=1, dtype=dtype)
    x[3] = 0
    x[4] *= 1e4
    with ops.use("reference"):
        want = ops.packed_linear(x, packed, bias, torch.float32)
    name, _, chosen = implementation.partition(" ")
    with ops.use(name):
        if chosen:
            with native.instruction_set(chosen):
                got = ops.packed_linear(x, packed, bias, torch.float32)
                rounded = ops.packed_linear(x, packed, bias)
        else:
            got = ops.packed_linear(x, packed, bias, torch.float32)
            rounded = ops.packed_linear(x, packed, bias)
    scale = x.float().abs().amax(1, keepdim=True) * unpack(packed).abs().sum(1) + 1
    # Torch rounds weights and sums.
    close = 1e-2 if name == "eager" and dtype == torch.bfloat16 else CLOSE
    assert ((got - want).abs() <= close * scale).all()
    if name == "native":
        assert torch.equal(rounded, got.to(dtype))


@needs_native
def test_int8_activations_keep_sixteen_bits() -> None:
    """Without outliers the product is as good as with float32 activations, to 1e-4 of its typical
    size."""
    packed, x = pack(draw(64, 512), "int8"), draw(4, 512, seed=1)
    want = x @ unpack(packed).T
    error = (
        ops.packed_linear(x, packed) - want
    ).square().mean().sqrt() / want.square().mean().sqrt()
    assert error < 1e-4


@pytest.mark.parametrize(
    "implementation", ["reference", "eager", *(["native"] if native.built() else [])]
)
def test_int4_activations_keep_eight_bits_of_their_group(implementation: str) -> None:
    """An outlier costs its own group its precision and no other; each value is within half a
    step."""
    weight = torch.zeros(16, 96)
    weight[:, 0:96:32] = 8  # of each group only the first input counts, and int4 holds it exactly
    x = draw(1, 96)
    x[0, 40] = 1000
    x[0, ::32] = torch.tensor([0.111, 0.111, 0.111])
    with ops.use(implementation):
        got = [
            float(
                ops.packed_linear(
                    torch.where(torch.arange(96) // 32 == g, x, 0), pack(weight, "int4")
                )[0, 0]
            )
            for g in range(3)
        ]
    steps = x.unflatten(1, (3, 32)).abs().amax(2)[0] / 127
    for value, step in zip(got, steps.tolist(), strict=True):
        assert value == pytest.approx(8 * step * round(0.111 / step), rel=1e-3)
    assert got[1] == 0, "next to 1000, a tenth is nothing"


@pytest.mark.parametrize(
    "implementation", ["reference", "eager", *(["native"] if native.built() else [])]
)
def test_gradients_pass_through_rounded_activations(implementation: str) -> None:
    packed, x = pack(draw(24, 64), "int4"), draw(3, 64, seed=1).requires_grad_()
    with ops.use(implementation):
        (dx,) = torch.autograd.grad(ops.packed_linear(x, packed).sum(), x)
    torch.testing.assert_close(dx, unpack(packed).sum(0).expand(3, 64))


@needs_native
@pytest.mark.parametrize("chosen", SETS)
@pytest.mark.parametrize("format", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_and_threads_do_not_change_a_bit(
    format: str, chosen: str, dtype: torch.dtype, threads: None
) -> None:
    packed, bias, x = (
        pack(draw(200, 192), format),
        draw(200, seed=1),
        draw(40, 192, seed=2, dtype=dtype),
    )
    with native.instruction_set(chosen):
        torch.set_num_threads(1)
        whole = ops.packed_linear(x, packed, bias)
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for rows in (*range(1, 20), 40):
                assert torch.equal(ops.packed_linear(x[:rows], packed, bias), whole[:rows]), (
                    count,
                    rows,
                )
            assert torch.equal(ops.packed_linear(x[7], packed, bias), whole[7])


@needs_native
@pytest.mark.parametrize("chosen", SETS)
@pytest.mark.parametrize("format", LAYOUTS)
def test_many_rows_of_many_inputs(format: str, chosen: str) -> None:
    """Where inputs are taken in slabs and rows in groups, for the caches' sake, no bit changes
    either."""
    packed, bias = pack(draw(50, 6500 if format == "bf16" else 12_900), format), draw(50, seed=1)
    x = draw(530, packed.in_features, seed=2, dtype=torch.bfloat16)
    with native.instruction_set(chosen):
        whole = ops.packed_linear(x, packed, bias, torch.float32)
        for rows in (1, 3, 33):
            assert torch.equal(
                ops.packed_linear(x[:rows], packed, bias, torch.float32), whole[:rows]
            )
            assert torch.equal(
                ops.packed_linear(x[-rows:], packed, bias, torch.float32), whole[-rows:]
            )
    with ops.use("reference"):
        want = ops.packed_linear(x[::50], packed, bias, torch.float32)
    scale = x[::50].float().abs().amax(1, keepdim=True) * unpack(packed).abs().sum(1) + 1
    assert ((whole[::50] - want).abs() <= CLOSE * scale).all()


@needs_native
def test_int8_is_equal_in_every_instruction_set() -> None:
    """Integer sums are exact, so where they are taken does not matter."""
    packed, x = pack(draw(50, 1000), "int8"), draw(5, 1000, seed=2)
    results = []
    for name in SETS:
        with native.instruction_set(name):
            results.append(ops.packed_linear(x, packed))
    assert all(torch.equal(result, results[0]) for result in results)


@needs_native
def test_largest_sums_do_not_overflow() -> None:
    """All weights and all activations at their largest, over the most inputs the format takes."""
    inputs = LONGEST
    for sign in (1, -1):
        packed = pack_int8(torch.full((2, inputs), sign * 127, dtype=torch.int8), torch.ones(2))
        for name in SETS:
            with native.instruction_set(name):
                got = ops.packed_linear(torch.full((1, inputs), 3.0), packed)
            torch.testing.assert_close(
                got, torch.full((1, 2), sign * 127 * 3.0 * inputs), rtol=1e-6, atol=0
            )


@needs_native
@pytest.mark.parametrize("format", LAYOUTS)
def test_what_is_not_finite_stays_so(format: str) -> None:
    packed, x = pack(draw(20, 70), format), draw(3, 70)
    x[1, 5] = float("nan")
    y = ops.packed_linear(x, packed)
    assert torch.isnan(y[1]).all()
    assert torch.isfinite(y[[0, 2]]).all()
    x[1, 5] = float("inf")
    assert not torch.isfinite(ops.packed_linear(x, packed)[1]).any()


@needs_native
def test_it_reads_no_uninitialised_output(threads: None) -> None:
    torch.set_num_threads(3)
    packed, x = pack(draw(33, 64), "int8"), draw(2, 64)
    want = ops.packed_linear(x, packed)
    deterministic.fill_uninitialized_memory = True  # pyright: ignore[reportAttributeAccessIssue]
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(ops.packed_linear(x, packed), want)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("format", LAYOUTS)
def test_gradients(format: str) -> None:
    packed = pack(draw(24, 40), format)
    x, bias = draw(2, 3, 40, seed=1).requires_grad_(), draw(24, seed=2).requires_grad_()
    dy = draw(2, 3, 24, seed=4)
    dx, dbias = torch.autograd.grad(ops.packed_linear(x, packed, bias), (x, bias), dy)
    torch.testing.assert_close(dx, dy @ unpack(packed), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(dbias, dy.sum((0, 1)))


@pytest.mark.parametrize("implementation", ["eager", *(["native"] if native.built() else [])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("format", LAYOUTS)
def test_gradients_never_unpack_the_whole_matrix(
    format: str, dtype: torch.dtype, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slices of 48 rows; what a call keeps and makes room for stays below the matrix."""
    monkeypatch.setattr(gradient, "_WEIGHTS", 48 * 200)
    packed, x = pack(draw(500, 200), format), draw(2, 200, seed=1, dtype=dtype).requires_grad_()
    dy, kept = draw(2, 500, seed=2, dtype=dtype), list[int]()
    with ops.use(implementation):
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.append(t.numel()) or t, lambda t: t
        )
        with hooks:
            y = ops.packed_linear(x, packed)
        with Largest() as largest:
            (dx,) = torch.autograd.grad(y, x, dy)
    assert not kept
    # Unpacked int4 passes through 64-bit groups that are padded, and no more.
    assert largest.entries <= 48 * 256 < 500 * 200
    weight = unpack(packed).double()
    wanted = dy.double() @ weight
    allowed = 1e-6 * wanted.abs().max() * torch.ones_like(wanted)
    if dtype is torch.bfloat16:  # rounded: the weights, the product of each slice, and the result
        slices = zip(dy.double().split(48, 1), weight.split(48), strict=True)
        allowed += 2**-8 * (wanted.abs() + sum((some @ rows).abs() for some, rows in slices))
        allowed += dy.double().abs() @ (weight - weight.bfloat16().double()).abs()
    assert ((dx.double() - wanted).abs() <= allowed).all()
    with ops.use("reference"):
        (theirs,) = torch.autograd.grad(ops.packed_linear(x, packed), x, dy)
    assert ((dx.double() - theirs.double()).abs() <= 2 * allowed).all()


@needs_native
def test_custom_op_is_well_formed() -> None:
    packed = pack(draw(24, 40), "int8")
    args = (draw(3, 40), packed.data, packed.scale, draw(24), "int8", 24, 40, torch.float32)
    torch.library.opcheck(torch.ops.griffin.packed_linear.default, args)


def test_strided_and_empty_inputs() -> None:
    packed, x = pack(draw(24, 40), "int4"), draw(6, 80)
    strided = x[:, ::2]
    assert torch.equal(
        ops.packed_linear(strided, packed), ops.packed_linear(strided.contiguous(), packed)
    )
    assert ops.packed_linear(x[:0, :40], packed).shape == (0, 24)


def test_refusals_say_why() -> None:
    packed = pack(draw(24, 40), "int8")
    with pytest.raises(ValueError, match="40 inputs"):
        ops.packed_linear(draw(2, 41), packed)
    with pytest.raises(ValueError, match="bias must be \\(24,\\)"):
        ops.packed_linear(draw(2, 40), packed, draw(23))
    with pytest.raises(ValueError, match="bf16, int8, int4"):
        pack(draw(24, 40), "int1")
    with pytest.raises(ValueError, match="0\\.\\.15"):
        pack_int4(torch.full((16, 32), 16, dtype=torch.uint8), torch.ones(16, 1))
    with pytest.raises(ValueError, match="0\\.\\.3"):
        pack_int2(torch.full((16, 32), 4, dtype=torch.uint8), torch.ones(16, 1))
    with pytest.raises(ValueError, match="scales \\(O, I/32\\)"):
        pack_int2(torch.zeros(16, 32, dtype=torch.uint8), torch.ones(16, 2))
    with pytest.raises(ValueError, match="0\\.\\.7"):
        pack_int3(torch.full((16, 32), 8, dtype=torch.uint8), torch.ones(16, 1))
    with pytest.raises(ValueError, match="matrix"):
        pack(draw(24), "int8")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("format", LAYOUTS)
def test_a_layout_knows_its_sizes(format: str, shape: tuple[int, int]) -> None:
    packed, layout = pack(draw(*shape), format), get_layout(format)
    assert packed.data.shape == layout.data_shape(*shape)
    assert packed.nbytes == layout.nbytes(*shape)
    assert (packed.scale is not None) == layout.row_scales
    assert get_layout("int4").data_shape(17, 65) == (2, 2 * 576)
    assert (packed.low is not None) == (layout.low_bytes > 0)
    assert get_layout("int3").data_shape(17, 65) == (2, 2 * 320)
    assert get_layout("int3").low_shape(17, 65) == (2, 2 * 128)
    assert get_layout("int2").data_shape(17, 65) == (2, 2 * 320)


@needs_native
def test_torn_weights_are_refused_before_they_are_read() -> None:
    packed, third = pack(draw(24, 40), "int8"), pack(draw(24, 40), "int3")
    assert third.low is not None
    for broken in (
        packed._replace(data=packed.data[:1]),
        packed._replace(data=packed.data[:, :-1]),
        packed._replace(scale=None),
        packed._replace(out_features=40),
        packed._replace(format="int4"),
        packed._replace(low=packed.data),
        third._replace(low=None),
        third._replace(low=third.low[:1]),
        third._replace(low=third.low.short()),
    ):
        with pytest.raises(ValueError):
            ops.packed_linear(draw(2, 40), broken)
