"""Gradients of packed rows: those of a loop in float64, and to the bit whatever stands beside."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from griffin import ops
from griffin.model import Griffin, GriffinConfig, layers
from griffin.model.config import GRIFFIN_PATTERN, block_pattern
from griffin.train.data.rows import TrainBatch
from griffin.train.objective import Objective
from tests.train.conftest import MODEL

CONFIG = GriffinConfig.from_dict(MODEL | {"block_types": block_pattern(4, GRIFFIN_PATTERN)})
LENGTH = 136  # many windows, and more than attention's blocks and a wave of the scan
PACKED = ((70, 1, 3, 40, 22), (2, 2, 132))
Rows = tuple[tuple[int, ...], ...]


def batch(documents: Rows) -> TrainBatch:
    chance = torch.Generator().manual_seed(0)
    shape = (len(documents), LENGTH)
    tokens = torch.randint(CONFIG.vocab_size, shape, generator=chance)
    targets = torch.randint(CONFIG.vocab_size, shape, generator=chance)
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in documents])
    return TrainBatch(tokens, targets, positions, torch.rand(shape, generator=chance) < 0.8)


def model() -> Griffin:
    torch.manual_seed(0)
    return Griffin(CONFIG)


def gradients(ours: Griffin) -> dict[str, Tensor]:
    return {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}


def loop(rows: TrainBatch) -> dict[str, Tensor]:
    """Read token after token in float64, by the ops' equations."""
    ours, state = model().to(torch.float64), None
    total = torch.zeros((), dtype=torch.float64)
    with ops.use("reference"):
        for at in range(LENGTH):
            place = slice(at, at + 1)
            logits, state = ours(rows.tokens[:, place], state, rows.segment_pos[:, place])
            nats = functional.cross_entropy(logits[:, 0], rows.targets[:, at], reduction="none")
            total = total + (nats * rows.mask[:, at]).sum()
    total.backward()
    return gradients(ours)


@pytest.fixture(scope="module")
def truth() -> dict[Rows, dict[str, Tensor]]:
    return {rows: loop(batch(rows)) for rows in (PACKED, PACKED[:1])}


def trained(rows: TrainBatch, keep_every: int, dtype: torch.dtype = torch.float32) -> Griffin:
    ours = model()
    ours.keep_every = keep_every
    Objective(ours, dtype)(rows.tokens, rows.targets, rows.segment_pos, rows.mask)[0].backward()
    return ours


@pytest.mark.parametrize("keep_every", [0, 1, 3])
@pytest.mark.parametrize("documents", [PACKED, PACKED[:1]], ids=["two rows", "one in pieces"])
def test_they_are_those_of_a_loop(
    documents: Rows,
    keep_every: int,
    truth: dict[Rows, dict[str, Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layers, "TOGETHER", 64)  # of a row that is alone
    found, wanted = gradients(trained(batch(documents), keep_every)), truth[documents]
    assert found.keys() == wanted.keys()
    for name, exact in wanted.items():
        near = 1e-5 * float(exact.abs().max())
        torch.testing.assert_close(found[name].double(), exact, rtol=1e-4, atol=near, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("keep_every", [0, 1, 3])
@pytest.mark.parametrize("changed", [0, 1, 3])
def test_another_document_changes_no_bit(changed: int, keep_every: int, dtype: torch.dtype) -> None:
    """One that nothing is learned from says something else: before, between and behind others."""
    rows = batch(PACKED)
    of_document = (rows.segment_pos[0] == 0).cumsum(0) - 1 == changed
    rows.mask[0, of_document] = False
    before = gradients(trained(rows, keep_every, dtype))
    rows.tokens[0, of_document] = (rows.tokens[0, of_document] + 7) % CONFIG.vocab_size
    rows.targets[0, of_document] = 3
    after = gradients(trained(rows, keep_every, dtype))
    for name, gradient in before.items():
        assert gradient.any() and torch.equal(gradient, after[name]), name
