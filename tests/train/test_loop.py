from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from griffin.train.checkpoint import latest_checkpoint
from griffin.train.data.rows import TrainBatch
from griffin.train.diverged import DivergedError
from griffin.train.loop import Trainer
from griffin.train.loss import row_nats
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.train.stopping import Interrupted

Build = Callable[..., Trainer]


def _log(trainer: Trainer) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (trainer.out / "log.jsonl").read_text().splitlines()]
    return [
        {
            k: v
            for k, v in e.items()
            if k not in ("seconds", "tokens_per_second", "peak_bytes", "matrix_share")
        }
        for e in entries
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


def test_padding_gives_no_gradient_and_no_document_sees_another(trainer: Build) -> None:
    """Rows of best-fit packing: the gradients of their documents apart, to rounding; what another
    document or the padding holds changes not a bit."""
    ours = trainer(data={"packing": "best-fit"}, length=96)
    batch = ours.packer.batch(0, 2)
    assert not batch.mask.all() and (batch.segment_pos[batch.mask] == 0).sum() > 3
    model = ours.model.to(torch.float64)

    def gradients(*parts: TrainBatch) -> list[torch.Tensor]:
        model.zero_grad()
        for part in parts:
            row_nats(model, part)[0].backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    apart = []
    for row in range(2):
        one = batch.rows(slice(row, row + 1), torch.device("cpu"))
        starts = [*(one.segment_pos[0] == 0).nonzero().flatten().tolist(), 96]
        for start, end in itertools.pairwise(starts):
            columns = (one.tokens, one.targets, one.segment_pos, one.mask)
            apart.append(TrainBatch(*(column[:, start:end] for column in columns)))
    packed = gradients(batch)
    for one, other in zip(gradients(*apart), packed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    # All targets but the first document's are masked; all other tokens are changed.
    first = int((batch.segment_pos[0] == 0).nonzero()[1])
    mask = torch.zeros_like(batch.mask)
    mask[0, :first] = True
    other = batch.tokens.clone()
    other[0, first:] = (other[0, first:] + 7) % 480
    other[1:] = 5
    seen = [
        gradients(TrainBatch(tokens, batch.targets, batch.segment_pos, mask))
        for tokens in (batch.tokens, other)
    ]
    assert all(map(torch.equal, *seen))


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
    assert stopped.progress.step == 3

    resumed = trainer("stopped", dtype=dtype, accumulation=2)
    assert resumed.progress.step == 3
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
    ours = trainer("run")
    ours.step()
    ours.save()
    with pytest.raises(
        ValueError, match=r"another recipe \(train\.learning_rate: 0\.001 there, 0\.5 here\)"
    ):
        trainer("run", learning_rate=0.5)
    trainer("run", log_every=2)


def test_two_do_not_train_in_one_folder(
    recipe: Callable[..., Recipe], trainer: Build, tmp_path: Path
) -> None:
    with trainer("run") as ours:
        with pytest.raises(ValueError, match=rf"process {os.getpid()} is training in .*run"):
            Trainer(recipe(), tmp_path / "run", Reporter(quiet=True))
        ours.step()  # the first is as it was
    Trainer(recipe(), tmp_path / "run", Reporter(quiet=True)).close()


@pytest.mark.parametrize(
    "schedule", [{"schedule": "constant"}, {"schedule": "wsd", "decay_steps": 2}]
)
def test_an_extended_run_is_one_planned_so(trainer: Build, schedule: dict[str, Any]) -> None:
    planned = trainer("planned", steps=9, **schedule)
    planned.run()
    short = trainer("run", steps=6, **schedule)
    while short.progress.step < 4:
        short.step()
    short.save()
    if schedule["schedule"] == "constant":
        short.run()  # to its end
    with pytest.raises(ValueError, match=r"train\.steps: 6 there, 9 here\); --extend goes on"):
        trainer("run", steps=9, **schedule)
    extended = trainer(
        "run", extend=True, steps=9, log_every=2, **schedule
    )  # what decides nothing may change
    extended.run()
    assert all(map(torch.equal, _weights(planned), _weights(extended)))
    [noted] = json.loads((extended.out / "recipe.json").read_text())["extended"]
    assert (noted["from_steps"], noted["to_steps"]) == (6, 9)
    trainer("run", steps=9, **schedule)  # from now on it is that run


def test_what_cannot_be_extended_says_why(trainer: Build) -> None:
    trainer("run").run()
    with pytest.raises(ValueError, match=r"cosine was planned to end after 6 steps.*'constant'"):
        trainer("run", extend=True, steps=9)
    with pytest.raises(ValueError, match="has done 6 steps; the new budget has 5"):
        trainer("run", extend=True, steps=5)
    with pytest.raises(ValueError, match="choose another --out"):
        trainer("run", extend=True, steps=9, clip=2.0)
    trainer("run")


def test_lines_of_the_log_that_cannot_be_read_are_dropped_and_told(
    trainer: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = trainer("run")
    for _ in range(4):
        ours.step()
    ours.save()
    lines = [json.dumps({"step": step}) for step in range(1, 7)]
    lines[1:1] = ["\0" * 50, '{"step": "x"}', '{"step": 1e999}', "[1]", "{}"]
    (ours.out / "log.jsonl").write_text("\n".join(lines) + '\n{"step": 7, "lo')
    resumed = trainer("run")
    resumed.reporter = Reporter()
    resumed.run()
    assert [entry["step"] for entry in _log(resumed)] == [1, 2, 3, 4, 5, 6]
    assert "log.jsonl had 6 lines that cannot be read" in capsys.readouterr().err


def test_a_warm_up_beyond_the_end_is_told(
    trainer: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = trainer(warmup_steps=50)
    ours.reporter = Reporter()
    ours.run()
    assert "warmup_steps is 50, the budget 6 steps" in capsys.readouterr().err


def test_weights_that_a_step_made_infinite_are_not_kept(trainer: Build) -> None:
    """Loss and gradient were finite: the rate was not one to step with."""
    ours = trainer(steps=1, learning_rate=1e38, warmup_steps=0, weight_decay=0.0)
    with pytest.raises(DivergedError, match=r"step 1 left model\..* are not finite; they are not"):
        for _ in range(3):
            ours.step()
            ours.save()
    assert latest_checkpoint(ours.checkpoints) is None


def test_a_divergence_names_tensor_row_and_documents(trainer: Build) -> None:
    ours = trainer()
    ours.step()
    # What is finite and yet too large: a product of it is not.
    with torch.no_grad():
        ours.model.get_parameter("model.layers.1.mlp_block.up_proj.weight").fill_(3e38)
    with pytest.raises(DivergedError) as error:
        ours.step()
    said = str(error.value)
    assert "the output of model.layers.1.mlp_block" in said and "is not finite, first in row 2" in (
        said
    )
    places = ours.packer.documents(2)
    assert f"{places[0][0]} from token {places[0][1]}" in said
    kept = load_file(ours.out / "diverged-0000002.safetensors")
    batch = ours.packer.batch(2, 2)
    assert torch.equal(kept["tokens"], batch.tokens) and torch.equal(kept["mask"], batch.mask)
    # Which documents are in a row is what its tokens say.
    [start] = [ours.data.train.paths.index(places[0][0])]
    ids = ours.data.train.document(start)[places[0][1] :]
    assert batch.tokens[0, : len(ids) - 1].tolist() == ids[: min(len(ids) - 1, 24)].tolist()


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
    ours.step()
    ours.save()
    monkeypatch.setattr("griffin.train.data.prepare.open_sources", None)
    again = trainer("run")
    assert list(again.data.train.paths) == list(ours.data.train.paths)
    assert again.step()["loss"] == ours.step()["loss"]


def test_vocabularies_must_fit(
    recipe: Callable[..., Recipe], trainer: Build, tmp_path: Path
) -> None:
    size = trainer("run").data.tokenizer.vocab_size
    values = recipe().to_dict()
    values["model"]["vocab_size"] = size - 1
    values["tokenizer"]["path"] = str(tmp_path / "run" / "tokenizer.json")
    with pytest.raises(
        ValueError, match=rf"tokenizer has {size} entries, the model's vocabulary {size - 1}"
    ):
        Trainer(Recipe.from_dict(values), tmp_path / "small", Reporter(quiet=True))
