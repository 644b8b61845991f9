"""What the compiler makes of the recurrence's kernels, for GPUs that are not here."""

from __future__ import annotations

import pytest

from tests.support.triton import check_compiled, compiled

KERNELS = "tests.ops.launches:recurrence"
MULTIPLY = {"_unit_ends", "_unit_out", "_unit_gradient_ends", "_unit_gradient", "_step"}


@pytest.mark.thorough
def test_registers_spills_and_loads():
    """On sm_90, at the widths of 2B; bfloat16 is multiplied on tensor cores."""
    kernels = compiled(KERNELS, 90)
    check_compiled(kernels)
    found = {kernel.name for kernel in kernels if kernel.has("HGMMA") or kernel.has("HMMA")}
    assert found == MULTIPLY


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 100, 120])
def test_they_compile_for_every_gpu(capability):
    kernels = compiled(KERNELS, capability)
    assert {kernel.name for kernel in kernels} > MULTIPLY
