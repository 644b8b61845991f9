"""What the compiler makes of every Triton kernel, for GPUs that are not here (docs/gpu.md)."""

from __future__ import annotations

import pytest

from griffin.ops.ahead import CAPABILITIES
from tests.ops import launches, step_launches
from tests.support.ahead import PROMPT, STEP
from tests.support.triton import check_compiled, compiled

# Kernels that multiply matrices; all that is looked up or counted is small.
MULTIPLY = {"_unit_ends", "_unit_out", "_unit_gradient_ends", "_unit_gradient", "_step"}
MULTIPLY |= {"_few_rows", "_ring_attention", "_local_attention"}
MULTIPLY |= {"_gradient_of_queries", "_gradient_of_keys"}
NARROW = {"_count", "_find_least", "_draw"}


def of(name: str) -> str:
    return f"tests.ops.{'step_' if name in STEP else ''}launches:{name}"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.thorough if name == "rg_lru" else pytest.mark.slow)
        for name in (*PROMPT, *STEP)
    ],
)
def test_registers_spills_and_loads(name):
    """On sm_90, at the widths of 2B; bfloat16 is multiplied on tensor cores."""
    kernels = compiled(of(name), 90)
    names = {kernel.name for kernel in kernels}
    products = set() if name == "in_float32" else names & MULTIPLY
    check_compiled(kernels, products=products, narrow=names & NARROW)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [each for each in CAPABILITIES if each != 90])
@pytest.mark.parametrize("name", [*PROMPT, *STEP])
def test_it_compiles_for_every_gpu(name, capability):
    asked = getattr(launches if name in PROMPT else step_launches, name)()
    assert {each.name for each in compiled(of(name), capability)} == {each.name for each in asked}
