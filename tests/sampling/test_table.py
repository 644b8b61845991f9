"""A draw of many rows at once chooses what their samplers do."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from griffin import ops
from griffin.ops.draw_tokens import triton as kernels
from griffin.ops.launching import record
from griffin.sampling import Sampler, SamplingParams
from griffin.sampling.table import as_bits, bias_of, counts_before, mask_of, row_tensors
from tests.support.triton import interpreted

__all__ = ["interpreted"]

ENDS = (1, 5)


def some_logits(dice: random.Random, size: int) -> Tensor:
    """Logits with ties, far-off ones, and now and then what is not finite."""
    kind = dice.randrange(12)
    generator = torch.Generator().manual_seed(dice.getrandbits(40))
    logits = torch.randn(size, generator=generator) * dice.choice((0.1, 1, 3, 20))
    if kind in (0, 1, 2):
        logits = logits.round()
    if kind == 3:
        logits = torch.zeros(size)
    if kind == 4:
        logits[torch.rand(size, generator=generator) < 0.7] = -math.inf
    if kind == 5:
        logits[dice.randrange(size)] = dice.choice((math.nan, math.inf, -math.inf))
    return logits


def some_params(dice: random.Random, size: int) -> SamplingParams:
    def now_and_then(*values: Any) -> Any:
        return dice.choice((None, None, None, *values))

    fields: dict[str, Any] = {
        "temperature": dice.choice((0, 1e-6, 0.3, 0.8, 1, 1, 1.7, 100)),
        "top_k": now_and_then(1, 2, 5, 40, 1000),
        "top_p": now_and_then(1e-9, 0.2, 0.5, 0.9, 0.95, 0.999999),
        "min_p": now_and_then(0.01, 0.05, 0.3, 1),
        "repetition_penalty": now_and_then(0.7, 1.1, 2),
        "presence_penalty": now_and_then(-1, 0.4, 2),
        "frequency_penalty": now_and_then(-0.5, 0.3),
        "logit_bias": now_and_then({0: 5, 2: -100}, {3: 1.5, size - 1: 100}),
        "suppress_ids": now_and_then((0, 3)),
        "begin_suppress_ids": now_and_then((2, size - 1)),
        "allowed_ids": now_and_then((1, 2, 3, 4, 5, 6), (1, 4)),
        "min_tokens": now_and_then(1, 3),
        "seed": dice.getrandbits(30),
    }
    return SamplingParams(**{k: v for k, v in fields.items() if v is not None})


class Row:
    """A sampler, and the same row as a draw has it."""

    def __init__(self, dice: random.Random, size: int) -> None:
        self.params, self.size = some_params(dice, size), size
        prompt = torch.tensor([dice.random() < 0.3 for _ in range(size)])
        self.sampler = Sampler(self.params, size, prompt, end_ids=ENDS)
        self.counts = counts_before(self.params, prompt)
        self.generator = torch.Generator().manual_seed(self.sampler.seed)
        self.chosen, self.dead = 0, False

    def tables(self) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        mask = mask_of(self.params, self.size, self.chosen == 0)
        ends = None
        if self.chosen < self.params.min_tokens:
            ends = torch.zeros(self.size, dtype=torch.bool)
            ends[list(ENDS)] = True
        bias = bias_of(self.params, self.size)
        return (
            self.counts,
            bias,
            None if mask is None else as_bits(mask),
            None if ends is None else as_bits(ends),
        )

    def uniform(self) -> float:
        if self.params.temperature == 0:
            return 0.5  # a greedy row's sampler draws nothing
        return torch.rand((), dtype=torch.float64, generator=self.generator).item()


def draw_of(rows: list[Row]) -> tuple[ops.Draw, list[Row]]:
    """Return the draw of some rows, and of its places in counts whose they are."""
    size = rows[0].size
    held: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    places = torch.full((4, len(rows)), -1, dtype=torch.int32)
    counted = []
    for at, row in enumerate(rows):
        for what, table in enumerate(row.tables()):
            if table is not None:
                into = held[min(what, 2)]
                places[what, at] = len(into)
                into.append(table)
                if what == 0:
                    counted.append(row)
    empty = torch.zeros(0, size, dtype=torch.int32)
    words = torch.zeros(0, -(-size // 32), dtype=torch.int32)
    counts, bias, masks = (torch.stack(each) if each else None for each in held)
    draw = ops.Draw(
        uniform=torch.tensor([row.uniform() for row in rows], dtype=torch.float64),
        **row_tensors([row.params for row in rows]),
        places=places,
        counts=empty if counts is None else counts,
        bias=empty.float() if bias is None else bias,
        masks=words if masks is None else masks,
    )
    return draw, counted


def compare(
    seed: int, count: int, sizes: tuple[int, ...], implementation: str = "reference"
) -> None:
    """Hold draws of `count` (logits, parameters, uniform) to their samplers, and their counts."""
    dice = random.Random(seed)
    faults = 0
    for _ in range(count // 40):
        size = dice.choice(sizes)
        rows = [Row(dice, size) for _ in range(20)]
        for _ in range(2):
            logits = torch.stack([some_logits(dice, size) for _ in rows])
            draw, counted = draw_of(rows)
            before = logits.clone()
            with ops.use(implementation):
                drawn = ops.draw_tokens(logits, draw)
            assert torch.equal(logits.nan_to_num(7), before.nan_to_num(7))
            for row, counts in zip(counted, draw.counts, strict=True):
                row.counts = counts.clone()
            for at, row in enumerate(rows):
                if row.dead:
                    continue
                if drawn.fault[at] == 2:
                    mask = mask_of(row.params, size, row.chosen == 0)
                    assert mask is not None and logits[at][mask].max() == -math.inf
                    row.dead = True
                    continue
                row.chosen += 1
                try:
                    expected = row.sampler.sample(logits[at])
                except FloatingPointError:
                    faults += 1
                    assert drawn.fault[at] == 1 and drawn.token[at] == 0
                    row.dead = True  # and drew nothing
                    continue
                assert drawn.fault[at] == 0
                assert drawn.token[at] == expected.id, (row.params, at)
                found, truth = drawn.logprob[at].item(), logits[at].double().log_softmax(0)
                exact = float(truth[expected.id])
                assert found == exact or abs(found - exact) <= 1e-6 * max(1, abs(exact))
                # A sampler takes a logit and a sum of that size from each other, in float32.
                best = max(1.0, float(logits[at].max().abs()), abs(exact))
                same = found == expected.logprob
                assert same or abs(found - expected.logprob) <= 1e-6 * best
                own = row.sampler._counts
                if own is not None and row.counts is not None:
                    assert torch.equal(row.counts >> 1, own)
    assert faults > count // 100


def test_a_draw_chooses_what_samplers_do():
    compare(1, 2000, (7, 33, 200, 1100))


@pytest.fixture
def small_parts(interpreted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut short rows into several parts, let few values into a list, and search in few passes."""
    for name, size in {"PART": 64, "ROOM": 48, "TILE": 128, "_WAYS": 32}.items():
        monkeypatch.setattr(kernels, name, size)


@pytest.mark.filterwarnings("ignore:invalid value|divide by zero|overflow")
@pytest.mark.parametrize(
    ("seed", "count"), [(2, 40), pytest.param(3, 2000, marks=pytest.mark.slow)]
)
def test_the_kernels_choose_what_samplers_do(seed, count, small_parts):
    compare(seed, count, (7, 33, 150), "triton")


@pytest.mark.parametrize("implementation", ["triton", "reference"])
def test_rows_beyond_the_live_ones_count_nothing(implementation, small_parts):
    rows, size = 3, 20
    fields: dict[str, Any] = {"temperature": 0, "frequency_penalty": 0.5}
    draw = ops.Draw(
        uniform=torch.zeros(rows, dtype=torch.float64),
        **row_tensors([SamplingParams(**fields)] * rows),
        places=torch.tensor([[2, 0, 1], [-1] * 3, [-1] * 3, [-1] * 3], dtype=torch.int32),
        counts=torch.zeros(3, size, dtype=torch.int32),
        bias=torch.zeros(0, size),
        masks=torch.zeros(0, 1, dtype=torch.int32),
    )
    logits = torch.arange(rows * size).remainder(7).float().view(rows, size)
    out = ops.DrawnTokens(
        torch.full((rows,), -1), torch.zeros(rows), torch.zeros(rows, dtype=torch.int32)
    )
    with ops.use(implementation):
        drawn = ops.draw_tokens(logits, draw, torch.tensor([2], dtype=torch.int32), out)
    assert drawn is out and out.token[:2].tolist() == [6, 0]
    assert draw.counts.nonzero().tolist() == [[0, 0], [2, 6]] and draw.counts[2, 6] == 2


def test_products_are_rounded_before_sums_and_the_operator_is_well_formed(small_parts):
    """As `Sampler` rounds a penalty; with a fused sum near ties would be others' on a GPU."""
    dice = random.Random(3)
    draw, rows = draw_of([Row(dice, 90) for _ in range(3)])
    logits = torch.stack([torch.randn(90, generator=torch.Generator().manual_seed(7))] * len(rows))
    with ops.use("triton"), record() as launches:
        out = ops.draw_tokens(logits, draw)
    assert len(launches) == 4
    assert all(each.options["enable_fp_fusion"] is False for each in launches)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(kernels._op, (logits, *draw, None, *out), test_utils=checks)


def test_what_a_draw_cannot_take_is_refused():
    draw, _ = draw_of([Row(random.Random(1), 9)])
    out = ops.DrawnTokens(torch.zeros(1), torch.zeros(1), torch.zeros(1, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"token must be \(1,\) torch.int64"):
        ops.draw_tokens(torch.zeros(1, 9), draw, out=out)
