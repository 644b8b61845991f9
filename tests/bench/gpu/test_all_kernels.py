"""No Triton kernel is forgotten: a sitting compiles and checks each, and so do the tests."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

import griffin
from griffin import ops
from griffin.bench.gpu import compiling
from griffin.bench.gpu.cases import CASES
from griffin.model import GriffinConfig
from griffin.ops.launching import record
from tests.support import ahead


@cache
def kernels() -> set[str]:
    """Return the names of what is launched: Triton's functions that no other of them uses."""
    found: set[str] = set()
    used: set[str] = set()
    texts = (file.read_text() for file in Path(griffin.__file__).parent.rglob("*.py"))
    for text in (text for text in texts if "triton.jit" in text):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and _compiled(node):
                assert node.name not in found, f"two kernels are called {node.name}"
                found.add(node.name)
                used |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return found - used


def _compiled(node: ast.FunctionDef) -> bool:
    return any("triton" in ast.unparse(each) for each in node.decorator_list)


def test_there_are_kernels_to_find():
    assert {"_draw", "_local_attention", "_few_rows", "fold_ends"} <= kernels()
    assert "search" not in kernels() and "_see" not in kernels()


@pytest.mark.parametrize("layers", [2, pytest.param(None, marks=pytest.mark.slow)])
def test_a_sitting_compiles_every_kernel(layers, monkeypatch):
    """Of tensors without values, at the widths of 2B, and slowly of both released shapes."""
    if layers is not None:
        config = GriffinConfig.preset("recurrentgemma-2b")
        few = config.replace(block_types=config.block_types[1 : 1 + layers])
        assert set(few.block_types) == {"recurrent", "attention"}
        monkeypatch.setattr(GriffinConfig, "preset", lambda name: few)
    assert {each.name for each in compiling.all_launches()} == kernels()


def test_the_matrix_of_the_tests_has_every_kernel():
    assert {each.name for each in ahead.of_tests()} == kernels()


def test_a_sitting_checks_every_kernel():
    """Of tensors without values, from which no int4 is packed: its kernel is that of int8."""

    def draw(*sizes: int) -> Tensor:
        return torch.empty(sizes, dtype=torch.bfloat16, device="meta")

    with record() as launches, ops.use("triton"):
        for case in (case for name, case in CASES.items() if "int4" not in name):
            case.run(case.operands(draw, *case.shapes[0]))
    assert {each.name for each in launches} == kernels()
