"""Products of few rows and rows of laid weights: the Triton kernels against the references."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from griffin import ops
from griffin.bench.gpu.limits import H200
from griffin.bench.work import matrix_shapes
from griffin.model import GriffinConfig
from griffin.ops.few_rows.laid import Laid
from griffin.ops.launching import record
from tests.ops.step_launches import FORMATS, products
from tests.ops.step_launches import laid as without_values
from tests.ops.test_twins import draw
from tests.support.triton import TOLERANCE, error, interpreted, poisoned

__all__ = ["interpreted", "poisoned"]
pytestmark = pytest.mark.usefixtures("interpreted")

# What stands around a product: outputs, inputs, and what is asked for.
PLAIN: dict[str, Any] = {"outputs": 33, "inputs": 70}
AFTER: dict[str, Any] = {"outputs": 40, "inputs": 300, "norm": True, "residual": True}
GATED: dict[str, Any] = {"outputs": 22, "inputs": 130, "norm": True, "gated": True}
HEAD: dict[str, Any] = {"outputs": 17, "inputs": 96, "cap": 3.0}


def laid(outputs: int, inputs: int, format: str | None, dtype: torch.dtype) -> Laid:
    weight = draw(outputs, inputs, dtype=torch.float32, seed=1).detach() / inputs**0.5
    bias = draw(outputs, dtype=dtype, seed=2).detach()
    return ops.lay([weight.to(dtype) if format is None else ops.pack(weight, format)], [bias])


def product(
    implementation: str, rows: int, case: dict[str, Any], format: str | None, dtype: torch.dtype
) -> Tensor:
    """Return a product of random numbers of `dtype`; the reference's is in float64."""
    weights = laid(case["outputs"], case["inputs"], format, dtype)
    outputs = case["outputs"] // 2 if case.get("gated") else case["outputs"]
    x, residual, norm = (
        draw(*shape, dtype=dtype, seed=seed).detach()
        for seed, shape in enumerate([(64, case["inputs"]), (64, outputs), (case["inputs"],)], 3)
    )
    if implementation == "reference":
        x = x.double()
        plain = weights.data.double() if format is None else weights.data
        weights = weights._replace(data=plain)
    with ops.use(implementation):
        return ops.few_rows(
            x[:rows],
            weights,
            norm=norm if case.get("norm") else None,
            eps=1e-5,
            gated=case.get("gated", False),
            cap=case.get("cap", 0.0),
            residual=residual[:rows] if case.get("residual") else None,
        )


@pytest.mark.parametrize(
    ("case", "format", "dtype", "rows"),
    [
        (AFTER, None, torch.bfloat16, 5),
        (GATED, "int8", torch.float32, 1),
        (GATED, None, torch.float32, 18),
        (HEAD, "int4", torch.bfloat16, 2),
        (PLAIN, "int4", torch.float32, 3),
        (PLAIN, "int8", torch.bfloat16, 3),
    ],
)
def test_products(case, format, dtype, rows, poisoned):
    got = product("triton", rows, case, format, dtype)
    assert got.dtype == dtype
    assert error(got, product("reference", rows, case, format, dtype)) <= TOLERANCE[dtype]


@pytest.mark.slow
@pytest.mark.parametrize("case", [PLAIN, AFTER, GATED, HEAD])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("rows", [1, 16, 17, 33, 64])
def test_many_products(case, format, dtype, rows, poisoned):
    test_products(case, format, dtype, rows, poisoned)


@pytest.mark.parametrize("format", [None, "int8"])
def test_a_row_has_the_same_bits_in_any_company(format):
    case = {"outputs": 24, "inputs": 70, "norm": True, "gated": format is None}
    alone, some, all = (product("triton", n, case, format, torch.bfloat16) for n in (1, 37, 64))
    assert torch.equal(alone, all[:1]) and torch.equal(some, all[:37])


def test_rows_beyond_the_live_ones_are_left_alone():
    weights = laid(20, 40, None, torch.float32)
    x = draw(20, 40, dtype=torch.float32, seed=0).detach()
    x[18:] = torch.nan
    for implementation in ("triton", "reference"):
        with ops.use(implementation):
            stream = torch.full((20, 20), 7.0)
            live = torch.tensor([18], dtype=torch.int32)
            assert ops.few_rows(x, weights, residual=stream, live=live, out=stream) is stream
        assert (stream[18:] == 7).all() and not stream.isnan().any()
        assert (stream[:18] != 7).all()


@pytest.mark.parametrize("inputs", [300, 1300])
@pytest.mark.parametrize("format", [None, "bf16", "int8", "int4"])
def test_laid_weights_are_the_packed_ones(format, inputs):
    weight = draw(37, inputs, dtype=torch.bfloat16, seed=0).detach()
    given = weight if format is None else ops.pack(weight, format)
    unpacked = weight if format is None else ops.unpack(given, torch.bfloat16)
    two = ops.lay([given, given])
    assert torch.equal(ops.unlay(two, torch.bfloat16), torch.cat([unpacked, unpacked]))
    x = draw(3, inputs, dtype=torch.bfloat16, seed=1).detach()
    exact = torch.nn.functional.linear(x, torch.cat([unpacked, unpacked]))
    assert torch.equal(ops.many_rows(x, two), exact)
    ids = torch.tensor([36, 0, 70, 5, 99])
    rows = torch.cat([unpacked, unpacked])[ids.clamp(max=73)] * 3.5
    with ops.use("reference"):
        assert torch.equal(ops.look_up_rows(ids, two, 3.5, torch.bfloat16), rows)
    with ops.use("triton"):
        assert torch.equal(ops.look_up_rows(ids, two, 3.5, torch.bfloat16), rows)


@pytest.mark.parametrize("format", FORMATS)
def test_a_part_of_laid_weights_is_unpacked_in_one_launch(format, poisoned):
    """As a prompt's product has it: rows 20 to 56 of 57, in float32 to the bit."""
    weight = draw(57, 300, dtype=torch.float32, seed=0).detach()
    whole = ops.lay([weight if format is None else ops.pack(weight, format)])
    rows, scale = slice(20, 57), whole.scale
    if scale is not None:
        scale = scale[rows] if scale.dim() == 1 else scale[:, rows]
    part = whole._replace(data=whole.data[rows], scale=scale)
    with ops.use("triton"), record() as launches:
        got = ops.look_up_rows(None, part, 1.0, torch.float32)
    assert torch.equal(got, ops.unlay(whole, torch.float32)[rows])
    assert torch.equal(got, ops.look_up_rows(None, part, 1.0, torch.float32))
    assert [each.name for each in launches] == ["_look_up_rows"]


def test_a_prompt_unpacks_2b_in_less_than_six_hundredths_of_its_time():
    """By bytes, on an H200, beside 4,096 tokens at the 112,000 a second that are asked for."""
    config = GriffinConfig.preset("recurrentgemma-2b")
    for format in FORMATS[1:]:
        moved = 0
        for outputs, inputs, count in matrix_shapes(config):
            with record() as launches, ops.use("triton"):
                weights = without_values(outputs, inputs, format, torch.bfloat16)
                ops.look_up_rows(None, weights, 1.0, torch.bfloat16)
            moved += count * sum(each.moved for each in launches)
        assert 0.03 < moved / H200.bytes_per_second / (4_096 / 112_000) < 0.06


def test_what_does_not_fit_is_refused():
    weights, x = laid(6, 8, None, torch.float32), torch.zeros(2, 8)
    for wrong in (
        {"x": torch.zeros(2, 7)},
        {"x": torch.zeros(8)},
        {"norm": torch.zeros(7)},
        {"residual": torch.zeros(2, 5)},
        {"gated": True, "out": torch.zeros(2, 6)},
        {"live": torch.tensor([1])},
    ):
        with pytest.raises(ValueError, match="must be"):
            ops.few_rows(**{"x": x, "weights": weights, **wrong})
    with pytest.raises(ValueError, match="one type"):
        ops.lay([torch.zeros(2, 8), torch.zeros(2, 7)])
    with pytest.raises(ValueError, match="as many biases"):
        ops.lay([torch.zeros(2, 8)], [torch.zeros(3)])
    with pytest.raises(ValueError, match="nothing to lay"):
        ops.lay([])
    with ops.use("triton"), pytest.raises(ValueError, match="of one type"):
        ops.few_rows(x.bfloat16(), weights)


def test_weights_are_read_once():
    """Bytes that products of a step touch, beside those of weights and what goes in and out."""
    for rows in (1, 64):
        for format in FORMATS:
            with record() as launches, ops.use("triton"):
                products(rows, format)
            assert len(launches) == 6
            most = 1.05 if rows == 1 else 1.3
            for one in launches:
                weights = one.constants["inputs"] * one.constants["outputs"]
                weights *= 2 if one.constants["gated"] else 1
                bits = {0: 16, 8: 8, 4: 4.5}[one.constants["bits"]]
                assert one.moved <= most * weights * bits / 8 + rows * 4 * 256_000
