"""Every kernel against its equation in float64: fresh inputs, and outputs that begin as NaN."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from griffin import ops
from griffin.bench.gpu.cases import CASES, KernelCase
from griffin.bench.gpu.figure import Figure
from griffin.bench.gpu.machines import check_kernels
from griffin.bench.gpu.scene import Scene

# Of the norm of what is right.
_MOST = {torch.float32: 5e-6, torch.bfloat16: 1e-2}


def kernels(scene: Scene) -> Iterator[Figure]:
    """Run each kernel at three shapes in two types, forward and, where there is one, backward."""
    check_kernels(scene.device.type == "cpu")
    for seed, (name, case) in enumerate(CASES.items()):
        for dtype, most in _MOST.items():
            found = {
                str(shape): errors(case, shape, dtype, scene.device, 10 * seed + number)
                for number, shape in enumerate(case.toy if scene.dry else case.shapes)
            }
            yield Figure(
                what=f"{name}, {str(dtype).removeprefix('torch.')}: error beside float64",
                value=max(max(each.values()) for each in found.values()),
                unit="",
                wanted=most,
                less=True,
                detail={"shapes": found},
            )


def errors(
    case: KernelCase, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, seed: int
) -> dict[str, float]:
    """Return how far off each result of a case is, of the norm of what is right."""
    generator = torch.Generator(device).manual_seed(seed)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, device=device).to(dtype)

    given = case.operands(draw, *shape)
    with poisoned(), ops.use("triton"):
        got = case.run(given)
    wide = {name: _wide(value) for name, value in given.items()}
    with ops.use("reference"):
        right = case.run(wide)
    return {name: _error(got[name], right[name]) for name in right}


@contextmanager
def poisoned() -> Iterator[None]:
    """Let new memory hold NaN, so that what a kernel does not write is seen."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _wide(value: object) -> object:
    if isinstance(value, ops.Laid):
        plain = value.format is None
        return value._replace(data=value.data.double()) if plain else value
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value.clone()
    return value


def _error(got: Tensor, right: Tensor) -> float:
    """Return the norm of a difference beside that of what is right; 1e9 where one is no number, and
    where whole numbers are not the same."""
    if not right.is_floating_point():
        return 0.0 if torch.equal(got, right) else 1e9
    if got.isnan().any():
        return 1e9
    difference = (got.double() - right.double()).norm()
    return float(difference / right.double().norm().clamp_min(1e-30))
