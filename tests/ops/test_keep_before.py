"""What a step overwrites is kept: the Triton kernels and the reference, the same bits."""

from __future__ import annotations

import pytest
import torch

from griffin import ops
from griffin.ops.launching import record
from tests.ops.test_twins import draw
from tests.support.triton import interpreted

__all__ = ["interpreted"]
pytestmark = pytest.mark.usefixtures("interpreted")
ROWS, SLOTS = 3, 5  # that step, and that there are


def stacked(rows: int, *slot: int, rings: int, dtype: torch.dtype) -> ops.Stacked:
    """Random numbers, of an odd width; slot: how many slots a ring has."""
    shapes = (2, rows, 3, 7), (2, rows, 7), *[(rings, rows, *slot, 2, 5)] * 2
    types = dtype, torch.float32, dtype, dtype
    drawn = (
        draw(*s, dtype=t, seed=n + len(slot))
        for n, (s, t) in enumerate(zip(shapes, types, strict=True))
    )
    return ops.Stacked(*(t.detach() for t in drawn))


@pytest.mark.parametrize("rings", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("live", [None, 2])
def test_as_much_is_kept_and_counted(live, dtype, rings):
    count = None if live is None else torch.tensor([live], dtype=torch.int32)
    found = []
    for implementation in ("triton", "reference"):
        state = stacked(SLOTS, 4, rings=rings, dtype=dtype)
        kept = stacked(ROWS, rings=rings, dtype=dtype)
        pos, before = torch.tensor([0, 3, 123_457, 8, 9]), torch.full((ROWS,), -1)
        with ops.use(implementation), record() as launches:
            ops.keep_before(state, pos, kept, before, count)
        found.append([*state, *kept, pos, before])
        assert len(launches) == (2 if implementation == "triton" else 0)
    for mine, truth in zip(*found, strict=True):
        assert torch.equal(mine, truth)
    *_, pos, before = found[0]
    runs = live or ROWS
    assert before.tolist() == [0, 3, 123_457][:runs] + [-1] * (ROWS - runs)
    assert pos.tolist() == [1, 4, 123_458][:runs] + [123_457][: ROWS - runs] + [8, 9]
