"""States carried from row to row: the loss of reading at once, gradients with the cut, resuming."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from griffin import ops
from griffin.model import Griffin, GriffinConfig, State
from griffin.train.carry import state_tensors, whole_states
from griffin.train.checkpoint import RunProgress
from griffin.train.data.rows import TrainBatch
from griffin.train.diverged import DivergedError
from griffin.train.loop import Trainer
from griffin.train.loss import row_nats
from griffin.train.objective import Objective
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.train.scale.ranks import Ranks
from griffin.train.scale.sharding import whole_weights
from griffin.train.stopping import Interrupted
from tests.support.ranks import on_ranks
from tests.train.conftest import MODEL
from tests.train.test_loop import _weights

Build = Callable[..., Trainer]
CARRY: dict[str, Any] = {"carry": True, "accumulation": 3, "length": 16}


def test_with_weights_that_stand_still_the_loss_is_that_of_reading_at_once(trainer: Build) -> None:
    """Over an epoch and steps' borders: documents of many rows have the nats they have whole."""
    ours = trainer(**CARRY, learning_rate=1e-30, weight_decay=0.0, steps=100)
    drawn = [w.clone() for w in _weights(ours)]
    steps = ours.packer.rows_per_epoch // 6
    nats = sum(ours.step()["loss"] * 6 * 16 for _ in range(steps))
    for one, other in zip(drawn, _weights(ours), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-25)
    rows = ours.packer.batch(0, steps * 6)
    goes_on = rows.segment_pos[:, 0] > 0
    assert goes_on.float().mean() > 0.5
    at_once = 0.0
    for stream in range(2):
        parts = (rows.tokens, rows.targets, rows.segment_pos, rows.mask)
        whole = TrainBatch(*(part[stream::2].reshape(1, -1) for part in parts))
        at_once += float(row_nats(ours.model, whole)[0].detach())
    assert nats == pytest.approx(at_once, rel=1e-5)
    # It is not that nothing depends on the state: each row afresh has other nats.
    reset = torch.where(goes_on[:, None], torch.arange(16), rows.segment_pos)
    apart = TrainBatch(rows.tokens, rows.targets, reset, rows.mask)
    assert float(row_nats(ours.model, apart)[0].detach()) != pytest.approx(at_once, rel=1e-4)


def _document(vocab: int, length: int) -> TrainBatch:
    chance = torch.Generator().manual_seed(length)
    ids = torch.randint(vocab, (2, length + 1), generator=chance)
    positions = torch.arange(length).expand(2, length).clone()
    positions[1, 20:] = torch.arange(length - 20)  # in the second row a document begins later
    return TrainBatch(ids[:, :-1], ids[:, 1:], positions, torch.ones(2, length, dtype=torch.bool))


def _pieces(batch: TrainBatch, *lengths: int) -> list[TrainBatch]:
    columns = (batch.tokens, batch.targets, batch.segment_pos, batch.mask)
    parts = zip(*(column.split(list(lengths), 1) for column in columns), strict=True)
    return [TrainBatch(*(part.contiguous() for part in piece)) for piece in parts]


def _gradients(model: Griffin) -> list[Tensor]:
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    assert len(found) == len(list(model.parameters()))
    model.zero_grad()
    return found


def test_each_piece_has_the_gradient_of_a_loop_with_the_cut() -> None:
    """The loop reads token after token in float64 by the ops' equations; between pieces its state
    is cut off."""
    torch.manual_seed(0)
    model = Griffin(GriffinConfig.from_dict(MODEL))
    truth = Griffin(model.config).to(torch.float64)
    truth.load_state_dict(model.state_dict())
    ours, state, exact = Objective(model), None, None
    for piece in _pieces(_document(480, 37), 13, 11, 13):
        nats, state = ours(piece.tokens, piece.targets, piece.segment_pos, piece.mask, state)
        nats.backward()
        total = torch.zeros((), dtype=torch.float64)
        with ops.use("reference"):
            for at in range(piece.tokens.shape[1]):
                place = slice(at, at + 1)
                logits, exact = truth(piece.tokens[:, place], exact, piece.segment_pos[:, place])
                total += functional.cross_entropy(
                    logits[:, 0], piece.targets[:, at], reduction="sum"
                )
        total.backward()
        assert exact is not None
        exact = exact.map(Tensor.detach)
        torch.testing.assert_close(nats.detach().double(), total.detach(), rtol=1e-5, atol=0)
        for one, other in zip(_gradients(model), _gradients(truth), strict=True):
            torch.testing.assert_close(one.double(), other, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_document_before_it_changes_not_a_bit(dtype: torch.dtype) -> None:
    """The second row's first document ends within a piece; the one behind it goes on in the next.
    Whatever the first one was, the second one's gradients are the same."""
    torch.manual_seed(0)
    model = Griffin(GriffinConfig.from_dict(MODEL))
    ours = Objective(model, dtype)
    document = _document(480, 37)
    changed = document.tokens.clone()
    changed[1, :20] = (changed[1, :20] + 7) % 480
    mask = document.mask.clone()
    mask[1, :20] = False
    seen = list[list[Tensor]]()
    for tokens in (document.tokens, changed):
        other, state = TrainBatch(tokens, document.targets, document.segment_pos, mask), None
        for piece in _pieces(other, 13, 11, 13):
            nats, state = ours(piece.tokens, piece.targets, piece.segment_pos, piece.mask, state)
            nats.backward()
        seen.append(_gradients(model))
    assert all(map(torch.equal, *seen))


@pytest.mark.sweep
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.thorough)])
def test_stopped_at_every_step_it_is_the_same_run(trainer: Build, dtype: str) -> None:
    """Across the epoch's border; a signal within a step throws away what the step carried."""
    options = CARRY | {"steps": 9, "length": 64, "dtype": dtype, "eval_every": 100}
    straight = trainer("straight", **options)
    straight.run()
    assert straight.progress.rows > straight.packer.rows_per_epoch
    for steps in range(9):
        stopped = trainer("stopped", **options)
        assert stopped.progress.step == steps
        objective, calls = stopped.objective.forward, 0

        def forward(*inputs: Any, call: Any = objective, last: bool = steps == 8) -> Any:
            nonlocal calls
            calls += 1
            if calls == 5 and not last:  # in the second step's second micro-batch
                os.kill(os.getpid(), signal.SIGTERM)
            return call(*inputs)

        stopped.objective.forward = forward  # pyright: ignore[reportAttributeAccessIssue]
        if steps < 8:
            with pytest.raises(Interrupted, match=f"step-{steps + 1:07d}"):
                stopped.run()
        else:
            stopped.run()
    assert all(map(torch.equal, _weights(straight), _weights(stopped)))
    ends = (state_tensors(each.carried, Ranks()) for each in (straight, stopped))
    for one, other in zip(*(end.values() for end in ends), strict=True):
        assert torch.equal(one, other)


def test_blocks_that_are_computed_again_carry_the_same(trainer: Build) -> None:
    plain, again = (trainer(name, **CARRY, checkpoint=name) for name in ("none", "blocks"))
    for _ in range(3):
        for each in (plain, again):
            each.step()
    assert all(map(torch.equal, _weights(plain), _weights(again)))


def test_a_divergence_is_found_with_the_states_of_the_step(trainer: Build) -> None:
    ours = trainer(**CARRY)
    ours.step()
    assert any((state.pos > 0).any() for state in ours.carried)
    ours.carried[0].layers[0][1][1, 3] = torch.inf
    row = 6 + 1
    with pytest.raises(DivergedError, match=rf"not finite, first in row {row}"):
        ours.step()


def _train(
    ranks: Ranks, values: dict[str, Any], out: Path, steps: int, bare: int | None = None
) -> None:
    """Go on with a run by some steps, and leave its weights and states.

    bare: the step (from 0) whose rows have no target.
    """
    with Trainer(Recipe.from_dict(values), out, Reporter(quiet=True), ranks=ranks) as ours:
        batch, of_step = ours.packer.batch, ours.plan.rows * ours.plan.accumulation

        def bare_batch(first_row: int, rows: int) -> TrainBatch:
            found = batch(first_row, rows)
            return dataclasses.replace(found, mask=found.mask & (first_row // of_step != bare))

        ours.packer.batch = bare_batch
        for _ in range(steps):
            ours.step()
        ours.save()
        told = {name: w.clone() for name, w in whole_weights(ours.model, ranks)}
        told |= state_tensors(whole_states(ours.carried, ranks), Ranks())
    if ranks.is_writer:
        torch.save(told, out / f"told-{ours.progress.step}.pt")


@pytest.mark.thorough
def test_two_ranks_carry_what_one_does(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """Each keeps the states of its own rows; a checkpoint of two goes on with one, and back."""
    values = recipe(**CARRY | {"rows": 4}, learning_rate=3e-3).to_dict()
    _train(Ranks(), values, tmp_path / "one", 5)
    on_ranks(2, _train, values, tmp_path / "two", 3)
    _train(Ranks(), values, tmp_path / "two", 1)
    on_ranks(2, _train, values, tmp_path / "two", 1)
    one, two = (torch.load(tmp_path / name / "told-5.pt") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_a_step_without_targets_changes_no_weight(
    trainer: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as a step and says null; what judges losses does not hear of it."""
    ours = trainer("run", steps=4, log_every=1)
    batch = ours.packer.batch

    def without(first: int, rows: int) -> TrainBatch:
        found = batch(first, rows)
        bare = dataclasses.replace(found, mask=torch.zeros_like(found.mask))
        return found if first else bare

    monkeypatch.setattr(ours.packer, "batch", without)
    weights = [weight.detach().clone() for weight in ours.model.parameters()]
    entry = ours.step()
    assert entry["step"] == ours.progress.step == ours.progress.without_targets == 1
    assert entry["tokens"] == ours.plan.tokens_per_step
    assert entry["loss"] is entry["gradient_norm"] is None
    for weight, before in zip(ours.model.parameters(), weights, strict=True):
        assert torch.equal(weight, before)
    assert not ours.optimizer.state
    ours.progress = RunProgress(recipe=ours.progress.recipe)
    said = list[str]()
    monkeypatch.setattr(ours.reporter, "say", said.append)
    ours.run()
    log = [json.loads(line) for line in (ours.out / "log.jsonl").read_text().splitlines()]
    assert log[0]["loss"] is None and all(each["loss"] > 1 for each in log[1:])
    assert ours.progress.loss_mean > 1 and ours.account()["steps_without_targets"] == 1
    assert said[-1] == "1 of 4 steps had no target: they changed no weight"


@pytest.mark.thorough
def test_a_step_without_targets_is_read_for_its_state_on_ranks_too(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """No weight changes, and the step after it is that of one process."""
    values = recipe(**CARRY | {"rows": 4}, learning_rate=3e-3).to_dict()
    for steps in (1, 2, 3):
        _train(Ranks(), values, tmp_path / f"one-{steps}", steps, 1)
    on_ranks(2, _train, values, tmp_path / "two", 3, 1)
    first, second, one = (torch.load(tmp_path / f"one-{n}" / f"told-{n}.pt") for n in (1, 2, 3))
    carried = {name for name in one if name.startswith("carried.")}
    same = {name for name, tensor in first.items() if torch.equal(tensor, second[name])}
    assert same >= one.keys() - carried and not carried <= same
    two = torch.load(tmp_path / "two" / "told-3.pt")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_states_are_of_this_moment_alone(trainer: Build) -> None:
    """What a step is handed stays what it was until the step is done."""
    ours = trainer(**CARRY)
    before = [state.clone() for state in ours.carried]
    handed = list(ours.carried)
    ours.step()
    for one, other in zip(before, handed, strict=True):
        assert isinstance(one, State) and torch.equal(one.pos, other.pos)
        for layer, same in zip(one.layers, other.layers, strict=True):
            assert all(map(torch.equal, layer, same))
