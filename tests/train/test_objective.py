"""One forward for training: weights split over ranks by torch's `fully_shard`, the head tied."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from griffin.model import Griffin, GriffinConfig
from griffin.train.data.rows import TrainBatch
from griffin.train.loss import row_nats
from griffin.train.objective import Objective
from griffin.train.scale.ranks import Ranks
from griffin.train.scale.sharding import shard
from tests.support.ranks import on_ranks
from tests.train.conftest import MODEL
from tests.train.test_embedding import batch

VOCAB = 20_000
CONFIG = GriffinConfig.from_dict(MODEL | {"vocab_size": VOCAB})


def told(objective: Objective, rows: TrainBatch) -> torch.Tensor:
    return objective(rows.tokens, rows.targets, rows.segment_pos, rows.mask)[0]


def model() -> Griffin:
    torch.manual_seed(0)
    return Griffin(CONFIG)


def work(ranks: Ranks, folder: Path) -> None:
    """Run one rank: two steps' worth of gradients, each rank on rows of its own."""
    ours = Objective(model())
    shard(ours, ranks)
    for _ in range(2):
        told(ours, batch(VOCAB, 2 + ranks.rank)).backward()
    gradients = {
        name: p.grad.full_tensor()  # pyright: ignore
        for name, p in ours.griffin.named_parameters()
    }
    if ranks.is_writer:
        torch.save(gradients, folder / "gradients")


@pytest.mark.thorough
def test_split_over_two_ranks_the_gradients_are_those_of_one(tmp_path: Path) -> None:
    on_ranks(2, work, tmp_path)
    found = torch.load(tmp_path / "gradients")
    alone = model()
    for _ in range(2):
        for rank in range(2):
            row_nats(alone, batch(VOCAB, 2 + rank))[0].backward()
    for name, parameter in alone.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


def work_beside_another(ranks: Ranks, folder: Path) -> None:
    """Gradients of all documents but one of rank 0's, twice: what that one says is another."""
    found = list[dict[str, torch.Tensor]]()
    for changed in (False, True):
        ours = Objective(model())
        shard(ours, ranks)
        rows = batch(VOCAB, 2 + ranks.rank)
        if ranks.rank == 0:
            rows.mask[0] = False
            if changed:
                rows.tokens[0] = rows.tokens[0].flip(0)
        told(ours, rows).backward()
        found.append(
            {
                name: p.grad.full_tensor()  # pyright: ignore
                for name, p in ours.griffin.named_parameters()
            }
        )
    if ranks.is_writer:
        torch.save(found, folder / "gradients")


@pytest.mark.thorough
def test_another_document_on_another_rank_changes_no_bit(tmp_path: Path) -> None:
    on_ranks(2, work_beside_another, tmp_path)
    one, other = torch.load(tmp_path / "gradients")
    for name in one:
        assert one[name].any() and torch.equal(one[name], other[name]), name


def test_it_is_the_loss_of_the_rows() -> None:
    rows = batch(VOCAB)
    assert torch.equal(told(Objective(model()), rows), row_nats(model(), rows)[0])


def test_rows_that_go_on_have_the_loss_of_reading_them_at_once() -> None:
    """Of a document in pieces, each with the state after the one before; documents may end in a
    piece."""
    whole = batch(VOCAB, length=40)
    positions = whole.segment_pos.clone()
    positions[1, 17:] = torch.arange(23)
    whole = TrainBatch(whole.tokens, whole.targets, positions, whole.mask)
    for dtype in (torch.float32, torch.bfloat16):
        ours = Objective(model(), dtype)
        at_once, end = ours(whole.tokens, whole.targets, whole.segment_pos, whole.mask)
        state, nats = None, 0.0
        for part in torch.arange(40).split(13):
            columns = (whole.tokens, whole.targets, whole.segment_pos, whole.mask)
            one, state = ours(*(column[:, part] for column in columns), state)
            nats += one.detach()
        assert state is not None and torch.equal(state.pos, end.pos)
        exact = dtype == torch.float32
        torch.testing.assert_close(nats, at_once.detach(), rtol=1e-6 if exact else 1e-3, atol=0)
        assert not any(t.requires_grad for layer in state.layers for t in layer)
