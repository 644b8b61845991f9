from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from griffin.train.checkpoint import latest_checkpoint
from griffin.train.loop import DivergedError, Interrupted, Trainer
from griffin.train.loss import row_nats
from griffin.train.packing import TrainBatch
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter

Build = Callable[..., Trainer]


def _log(trainer: Trainer) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (trainer.out / "log.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in e.items() if k not in ("seconds", "tokens_per_second")} for e in entries
    ]


def _weights(trainer: Trainer) -> list[torch.Tensor]:
    return [p.detach() for p in trainer.model.parameters()]


def test_the_loss_falls(trainer: Build) -> None:
    ours = trainer(steps=40, learning_rate=0.02, rows=4)
    ours.run()
    losses = [entry["loss"] for entry in _log(ours)]
    assert sum(losses[-5:]) / 5 < 0.6 * losses[0]
    bits = [e["held_out_bits_per_byte"] for e in _log(ours) if "held_out_bits_per_byte" in e]
    assert bits[-1] < 0.7 * bits[0]


@pytest.mark.sweep
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_stopped_run_goes_on_bit_for_bit(trainer: Build, dtype: str) -> None:
    straight = trainer("straight", dtype=dtype, accumulation=2)
    straight.run()

    stopped = trainer("stopped", dtype=dtype, accumulation=2)
    step = stopped.step

    def step_and_signal() -> dict[str, Any]:
        if stopped.progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step()

    stopped.step = step_and_signal  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(Interrupted) as stop:
        stopped.run()
    assert stop.value.path == latest_checkpoint(stopped.checkpoints)
    assert stopped.progress.step == 4

    resumed = trainer("stopped", dtype=dtype, accumulation=2)
    assert resumed.progress.step == 4
    resumed.run()
    assert all(map(torch.equal, _weights(straight), _weights(resumed)))
    assert _log(straight) == _log(resumed)
    assert [entry["step"] for entry in _log(resumed)] == [1, 2, 3, 4, 5, 6]


def test_a_crash_between_checkpoints_repeats_the_lost_steps(trainer: Build) -> None:
    crashed = trainer("crashed")
    save, step = crashed.save, crashed.step

    def step_and_crash() -> dict[str, Any]:
        if crashed.progress.step == 2:
            save()
        if crashed.progress.step == 5:
            raise MemoryError
        return step()

    crashed.step = step_and_crash  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(MemoryError):
        crashed.run()
    with (crashed.out / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "lo')  # a line torn by the crash
    resumed = trainer("crashed")
    assert resumed.progress.step == 2
    resumed.run()
    straight = trainer("straight")
    straight.run()
    assert _log(straight) == _log(resumed)


def test_a_second_signal_stops_at_once(trainer: Build) -> None:
    ours = trainer()

    def insist() -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("unreachable")

    ours.step = insist  # pyright: ignore[reportAttributeAccessIssue]
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        ours.run()
    assert signal.getsignal(signal.SIGINT) is before


def test_accumulation_is_one_large_batch(trainer: Build) -> None:
    large, small = trainer("large", rows=6), trainer("small", rows=2, accumulation=3)
    first, second = large.step(), small.step()
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-6)
    assert first["gradient_norm"] == pytest.approx(second["gradient_norm"], rel=1e-5)
    for mine, theirs in zip(large.model.parameters(), small.model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-7)


def test_masked_targets_weigh_nothing_across_micro_batches(
    trainer: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one target in the first micro-batch and many in the second, each still weighs the
    same."""
    ours = trainer(accumulation=2)
    batch = ours.packer.batch

    def masked(first: int, rows: int) -> TrainBatch:
        part = batch(first, rows)
        if first == 0:
            part.mask[:] = False
            part.mask[0, 3] = True
        return part

    monkeypatch.setattr(ours.packer, "batch", masked)
    both = [masked(0, 2), masked(2, 2)]
    nats = sum(float(row_nats(ours.model, b)[0].detach()) for b in both)
    assert ours.step()["loss"] == pytest.approx(nats / 49, rel=1e-6)


def test_documents_packed_give_the_gradients_of_documents_apart(trainer: Build) -> None:
    model = trainer().model.to(torch.float64)
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(480, (1, n + 1), generator=generator) for n in (5, 1, 17, 2)]
    lengths = [d.shape[1] - 1 for d in documents]

    def gradients(batches: list[TrainBatch]) -> list[torch.Tensor]:
        model.zero_grad()
        for batch in batches:
            row_nats(model, batch, torch.float32)[0].backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    def batch(parts: list[torch.Tensor]) -> TrainBatch:
        tokens, targets = (
            torch.cat([p[:, cut] for p in parts], 1) for cut in (slice(-1), slice(1, None))
        )
        positions = torch.cat([torch.arange(p.shape[1] - 1)[None] for p in parts], 1)
        return TrainBatch(tokens, targets, positions, torch.ones_like(tokens, dtype=torch.bool))

    apart = gradients([batch([document]) for document in documents])
    packed = gradients([batch(documents)])
    assert batch(documents).tokens.shape[1] == sum(lengths)
    # The head's products are float32 here, as in training; the trunk is float64.
    for one, other in zip(apart, packed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_no_number_stops_before_the_weights_change(trainer: Build) -> None:
    ours = trainer()
    ours.step()
    saved = ours.save()
    with torch.no_grad():
        ours.model.model.embed_tokens.weight[2] = torch.nan
    before = [w.clone() for w in _weights(ours)]
    with pytest.raises(DivergedError, match=rf"step 2: the loss is nan.*{saved.name}"):
        ours.step()
    for one, other in zip(before, _weights(ours), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_another_recipe_is_refused_and_differences_are_named(trainer: Build) -> None:
    trainer("run")
    with pytest.raises(
        ValueError, match=r"another recipe \(train\.learning_rate: 0\.001 there, 0\.5 here\)"
    ):
        trainer("run", learning_rate=0.5)
    trainer("run", log_every=2)


def test_a_recipe_that_failed_can_be_corrected(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="less than one row of 100000"):
        Trainer(recipe(length=100_000), out, Reporter(quiet=True))
    assert Trainer(recipe(), out, Reporter(quiet=True)).step()["step"] == 1


def test_a_resumed_run_does_not_read_the_documents_again(
    trainer: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = trainer("run")
    monkeypatch.setattr("griffin.train.data.open_corpus", None)
    again = trainer("run")
    assert again.data.train.paths == ours.data.train.paths
    assert again.step()["loss"] == ours.step()["loss"]


def test_vocabularies_must_fit(
    recipe: Callable[..., Recipe], trainer: Build, tmp_path: Path
) -> None:
    size = trainer("run").data.tokenizer.get_vocab_size()
    values = recipe().to_dict()
    values["model"]["vocab_size"] = size - 1
    values["tokenizer"]["path"] = str(tmp_path / "run" / "tokenizer.json")
    with pytest.raises(
        ValueError, match=rf"tokenizer has {size} entries, the model's vocabulary {size - 1}"
    ):
        Trainer(Recipe.from_dict(values), tmp_path / "small", Reporter(quiet=True))
