"""One token of the recurrent block: in place, live rows alone, the reference's numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from griffin import ops
from griffin.ops.launching import record
from griffin.ops.rg_lru import Gate
from tests.ops.test_twins import draw
from tests.support.triton import TOLERANCE, error, interpreted, poisoned

__all__ = ["interpreted", "poisoned"]
pytestmark = pytest.mark.usefixtures("interpreted", "poisoned")


class Step:
    """Operands of a step over some rows, with slots behind them that are not its own."""

    def __init__(self, rows: int, blocks: int, size: int, dtype: torch.dtype) -> None:
        width = blocks * size
        shapes = [(rows, width), (rows, width), (width, 1, 4), (width,)]
        gates = [(blocks, size, size), (blocks, size)] * 2
        given = [
            draw(*shape, dtype=dtype, seed=n).detach() for n, shape in enumerate(shapes + gates)
        ]
        for n in (4, 6):
            given[n] *= size**-0.5
        self.x, self.gate, *self.weights = given
        self.param = draw(width, dtype=dtype, seed=8).detach() - 4
        self.position = torch.arange(rows) * 3  # the first row begins a document
        self.conv = draw(rows + 2, 3, width, dtype=dtype, seed=9).detach()
        self.lru = draw(rows + 2, width, dtype=torch.float32, seed=10).detach()

    def __call__(
        self,
        implementation: str,
        live: int | None = None,
        rows: slice = slice(None),
        kept: tuple[Tensor, Tensor] | None = None,
    ) -> list[Tensor]:
        """Return the result, the state after it, and what was kept of the one before; as reference,
        in float64."""

        def kind(t: Tensor) -> Tensor:
            return t.double() if implementation == "reference" else t.clone()

        taps, bias, wi, bi, wr, br = map(kind, self.weights)
        conv, lru = kind(self.conv[rows]), kind(self.lru[rows])
        count = None if live is None else torch.tensor([live], dtype=torch.int32)
        x, gate = self.x[rows], self.gate[rows]
        if kept is None:
            kept = torch.full_like(conv[: len(x)], 7), torch.full_like(lru[: len(x)], 7)
        if implementation == "reference":
            x, gate = x.double(), gate.double()
        gates = Gate(wi, bi), Gate(wr, br)
        with ops.use(implementation):
            out = ops.recurrent_step(
                *(x, gate, taps, bias, *gates, kind(self.param), self.position[rows], conv, lru),
                *(count, kept),
            )
        return [out, conv, lru, *kept]


@pytest.mark.parametrize("implementation", ["triton", "eager"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_result_and_state(dtype, implementation):
    step = Step(3, 2, 20, dtype)
    got, want = step(implementation), step("reference")
    assert torch.equal(got[1].double(), want[1])
    assert error(got[0], want[0]) <= TOLERANCE[dtype]
    assert error(got[2], want[2]) <= TOLERANCE[dtype]
    for found in (got, want):
        for kept, before in zip(found[3:], (step.conv, step.lru), strict=True):
            assert torch.equal(kept, before[:3].to(kept.dtype))


@pytest.mark.parametrize("implementation", ["triton", "eager", "reference"])
def test_rows_behind_the_live_ones_are_untouched(implementation):
    step = Step(5, 1, 5, torch.float32)
    all_run, some = step(implementation), step(implementation, live=3)
    assert torch.equal(some[0][:3], all_run[0][:3])
    for mine, whole, before in zip(some[1:3], all_run[1:3], (step.conv, step.lru), strict=True):
        assert torch.equal(mine[:3], whole[:3])
        assert torch.equal(mine[3:].float(), before[3:])
    for kept, before in zip(some[3:], (step.conv, step.lru), strict=True):
        assert torch.equal(kept[:3].float(), before[:3]) and bool((kept[3:] == 7).all())


def test_a_row_has_the_bits_it_has_alone():
    step = Step(37, 1, 16, torch.float32)
    together = step("triton")
    for row in (0, 31, 36):
        alone = step("triton", rows=slice(row, row + 1))
        for mine, all_rows in zip(alone, together, strict=True):
            assert torch.equal(mine[0], all_rows[row])


def test_halves_of_one_product_are_read_where_they_lie():
    step = Step(3, 1, 20, torch.float32)
    apart = step("triton")
    step.x, step.gate = torch.cat([step.x, step.gate], 1).chunk(2, 1)
    assert not step.x.is_contiguous()
    for mine, other in zip(step("triton"), apart, strict=True):
        assert torch.equal(mine, other)


def test_it_is_one_launch_whatever_the_rows():
    with record() as launches:
        Step(1, 1, 5, torch.float32)("triton")
        Step(70, 1, 5, torch.float32)("triton", live=1)
    assert [each.name for each in launches] == ["_step", "_step"]


def test_what_does_not_fit_is_refused():
    step = Step(2, 1, 5, torch.float32)
    step.conv = step.conv[:, 1:]
    with pytest.raises(ValueError, match="conv, lru must be"):
        step("triton")
    step = Step(2, 1, 5, torch.float32)
    step.lru = step.lru.double()
    with pytest.raises(ValueError, match="conv, lru, position must be"):
        step("triton")
    step = Step(2, 1, 5, torch.float32)
    step.gate = step.gate[:1]
    with pytest.raises(ValueError, match="x and gate must be equal"):
        step("triton")
    step = Step(2, 1, 5, torch.float32)
    with pytest.raises(ValueError, match=r"kept must be contiguous \(2, 3, 5\) torch.float32"):
        step("triton", kept=(step.conv, step.lru))
