"""Triton kernels without a GPU: run in the interpreter, compiled ahead in a process of its own.

`python -m tests.support.triton MODULE:FUNCTION 90 ...` compiles what FUNCTION() says is launched
(`griffin.ops.launching.Launch`) for these capabilities and prints what came of it as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from griffin.engine import runners
from griffin.engine.graphs import NoGraphs
from griffin.ops import dispatch, interpreter, native
from griffin.ops.ahead import Compiled, compile_ahead
from griffin.ops.dispatch import IMPLEMENTATIONS
from griffin.ops.launching import TYPES

ROOT = Path(__file__).parents[2]
MOST_REGISTERS = 168
# Relative to the norm of the reference in float64.
TOLERANCE = {torch.float32: 5e-6, torch.bfloat16: 1e-2}


@pytest.fixture(scope="module")
def interpreted() -> None:
    """Run the Triton kernels of a module of tests in the interpreter (tests/conftest.py turned it
    on, where there is no GPU)."""
    if not torch.cuda.is_available():
        interpreter.enable()


@pytest.fixture
def as_on_a_gpu(interpreted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every op run on the CPU what it would on a GPU: Triton's kernels in the interpreter, and
    torch where it has none."""
    dispatch._choice("rg_lru", "cpu", torch.float32)  # loads all but those
    dispatch._load(lambda name: name == "triton")

    def choose(op: str, device: str, dtype: torch.dtype, number: int | None = None) -> str:
        names = [name for name in IMPLEMENTATIONS[op] if name != "native"]
        return names[1] if names[0] == "triton" and dtype not in TYPES else names[0]

    monkeypatch.setattr(dispatch, "_choose", choose)
    monkeypatch.setattr(native, "built", lambda: False)


@pytest.fixture
def by_kernels(as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an engine step by kernels unless it is told otherwise, as on a GPU."""
    monkeypatch.setattr(runners, "why_no_kernels", lambda *_: None)
    monkeypatch.setattr(runners, "CudaGraphs", lambda device: NoGraphs())


def error(got: Tensor, want: Tensor) -> float:
    """Return how far off a result is: the norm of the difference, of the reference's norm."""
    assert got.shape == want.shape
    assert not got.isnan().any(), "something was never written"
    difference = (got.double() - want.double()).norm()
    return float(difference / want.double().norm().clamp_min(1e-30)) if difference else 0.0


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill all new memory for results with NaN, so that what a kernel leaves out is seen."""

    def fill(make):
        def made(*args, **kwargs):
            t = make(*args, **kwargs)
            return t.fill_(float("nan")) if t.is_floating_point() else t

        return made

    for owner, name in (
        (torch, "empty_like"),
        (torch, "empty"),
        (Tensor, "new_empty"),
    ):
        monkeypatch.setattr(owner, name, fill(getattr(owner, name)))


@cache
def compiled(launches: str, *capabilities: int) -> list[Compiled]:
    """Return what MODULE:FUNCTION's launches compile to; kernels that are launched twice, once."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.support.triton", launches, *map(str, capabilities)]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return [
        Compiled(**{**each, "instructions": tuple(each["instructions"])})
        for each in json.loads(ran.stdout)
    ]


def check_compiled(
    kernels: list[Compiled], *, products: Collection[str] = (), narrow: Collection[str] = ()
) -> None:
    """Assert that kernels for sm_90 spill nothing, read 16 bytes at once where they are not among
    `narrow`, and multiply on tensor cores, in one type at least, where they are among
    `products`."""
    assert kernels
    for kernel in kernels:
        assert not kernel.spills() and kernel.registers <= MOST_REGISTERS, kernel
        wide = [each for each in kernel.instructions if each.startswith(("LDG", "LDGSTS", "UTMA"))]
        bytes16 = any(".128" in each or each.startswith("UTMA") for each in wide)
        assert bytes16 or kernel.name in narrow, (kernel.name, wide)
    # In float32 there is nothing to multiply on them.
    found = {kernel.name for kernel in kernels if kernel.has("HMMA") or kernel.has("HGMMA")}
    assert found >= set(products)


def main(launches: str, *capabilities: str) -> None:
    module, _, function = launches.partition(":")
    seen, out = set(), []
    for one in getattr(importlib.import_module(module), function)():
        key = one.name, repr(one.args), repr(one.constants), repr(one.options)
        if key not in seen:
            seen.add(key)
            out += [vars(compile_ahead(one, int(each))) for each in capabilities]
    print(json.dumps(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
