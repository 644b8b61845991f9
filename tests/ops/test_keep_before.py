"""What a step overwrites is kept: the Triton kernels and the reference, the same bits."""

from __future__ import annotations

import importlib

import pytest
import torch

from griffin import ops
from griffin.ops.launching import record
from tests.ops.test_twins import draw
from tests.support.triton import interpreted

__all__ = ["interpreted"]
pytestmark = pytest.mark.usefixtures("interpreted")
ROWS, SLOTS = 3, 5  # that step, and that there are


def pair(
    rows: int, *slot: int, layers: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random numbers, of an odd width; slot: how many slots a ring has."""
    shape = (layers, rows, *slot, 2, 5)
    keys, values = (draw(*shape, dtype=dtype, seed=n + len(slot)).detach() for n in (0, 2))
    return keys, values


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("live", [None, 2])
def test_as_much_is_kept_and_counted(live, dtype, layers):
    count = None if live is None else torch.tensor([live], dtype=torch.int32)
    found = []
    for implementation in ("triton", "reference"):
        rings, kept = (pair(*shape, layers=layers, dtype=dtype) for shape in ((SLOTS, 4), (ROWS,)))
        pos, before = torch.tensor([0, 3, 123_457, 8, 9]), torch.full((ROWS,), -1)
        with ops.use(implementation), record() as launches:
            ops.keep_before(rings, pos, kept, before, count)
        found.append([*rings, *kept, pos, before])
        launched = [each.name for each in launches]
        assert launched == (["_keep"] * bool(layers) + ["_count"]) * (implementation == "triton")
    for mine, truth in zip(*found, strict=True):
        assert torch.equal(mine, truth)
    *_, pos, before = found[0]
    runs = live or ROWS
    assert before.tolist() == [0, 3, 123_457][:runs] + [-1] * (ROWS - runs)
    assert pos.tolist() == [1, 4, 123_458][:runs] + [123_457][: ROWS - runs] + [8, 9]


def test_the_operator_is_well_formed():
    kernels = importlib.import_module("griffin.ops.keep_before.triton")
    rings, kept = (pair(*s, layers=2, dtype=torch.float32) for s in ((SLOTS, 4), (ROWS,)))
    pos, before = torch.tensor([0, 3, 7, 8, 9]), torch.full((ROWS,), -1)
    args = (*rings, pos, *kept, before, torch.tensor([2], dtype=torch.int32))
    torch.library.opcheck(kernels._op, args, test_utils=("test_schema", "test_faketensor"))
