"""A run over ranks is the run of one process, to rounding; over as many ranks again, to the bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from griffin.checkpoints import load_model
from griffin.train.diverged import DivergedError
from griffin.train.export import export
from griffin.train.loop import Trainer
from griffin.train.loss import row_nats
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.train.scale.ranks import Ranks, WriterFailedError
from griffin.train.scale.sharding import whole_weights
from griffin.train.stopping import Interrupted
from tests.support.ranks import on_ranks

STEPS, STOP = 5, 3
VARIANTS: dict[str, dict[str, Any]] = {
    "products": {"dtype": "bfloat16"},
    "weights": {"dtype": "bfloat16", "weights": "bfloat16"},
    "again": {"checkpoint": "blocks"},
    "carry": {"carry": True},
}


def train(ranks: Ranks, values: dict[str, Any], out: Path) -> Trainer:
    return Trainer(Recipe.from_dict(values), out, Reporter(quiet=True), ranks=ranks)


def weights(ours: Trainer) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in whole_weights(ours.model, ours.ranks)}


def log(out: Path) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [
        {
            k: v
            for k, v in e.items()
            if k not in ("seconds", "tokens_per_second", "peak_bytes", "matrix_share")
        }
        for e in entries
    ]


def full(gradient: Any) -> torch.Tensor:
    return gradient.full_tensor()


def gradients(ranks: Ranks, values: dict[str, Any], folder: Path) -> None:
    """Leave the gradient of the first step, and the weights before it."""
    values = values | {"train": values["train"] | {"clip": 0.0}}
    with train(ranks, values, folder / f"gradients-{ranks.world}") as ours:
        before = weights(ours)
        entry = ours.step()
        found = {name: full(p.grad) for name, p in ours.model.named_parameters()}
    if ranks.is_writer:
        torch.save((before, found, entry), folder / f"gradients-{ranks.world}.pt")


def two(ranks: Ranks, values: dict[str, Any], folder: Path) -> None:
    """On two ranks: a run from end to end, one that is stopped on the second rank, and one that a
    single process began."""
    # A block's output that a write would cut off from the backward pass.
    warnings.filterwarnings("error", "FSDP2-wrapped module")
    with train(ranks, values, folder / "straight") as ours:
        ours.run()
        straight = weights(ours)
        # The writer exports, and says why nobody else can train here.
        assert (export(ours) is None) == (ranks.rank == 1)
        error = pytest.raises(WriterFailedError, match="said why")
        if ranks.is_writer:
            error = pytest.raises(ValueError, match=r"is training in .*straight")
        with error:
            train(ranks, values, folder / "straight")
    with train(ranks, values, folder / "stopped") as ours:
        step = ours.step

        def step_and_signal() -> dict[str, Any]:
            entry = step()
            if ours.progress.step == STOP and ranks.rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return entry

        ours.step = step_and_signal  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(Interrupted, match="step-0000003"):
            ours.run()
    if ranks.is_writer:
        shutil.copytree(folder / "stopped", folder / "from-two")
    with train(ranks, values, folder / "stopped") as ours:
        assert ours.progress.step == STOP
        ours.run()
        assert all(torch.equal(straight[name], w) for name, w in weights(ours).items())
    with train(ranks, values, folder / "from-one") as ours:
        assert ours.progress.step == STOP
        ours.run()
    gradients(ranks, values, folder)
    diverge(ranks, values, folder / "diverged")
    for name, change in VARIANTS.items():
        entries = steps(ranks, values, change, folder / name)
        if ranks.is_writer:
            (folder / f"{name}.json").write_text(json.dumps(entries))


def steps(
    ranks: Ranks, values: dict[str, Any], change: dict[str, Any], out: Path
) -> list[dict[str, Any]]:
    """Do two steps, and take the third one after going on from a checkpoint."""
    values = values | {"train": values["train"] | change}
    with train(ranks, values, out) as ours:
        entries = [ours.step(), ours.step()]
        ours.save()
    with train(ranks, values, out) as ours:
        return [*entries, ours.step()]


def diverge(ranks: Ranks, values: dict[str, Any], out: Path) -> None:
    """What is not finite on the second rank ends both, and the writer finds it."""
    with train(ranks, values, out) as ours:
        if ranks.rank == 1:
            with torch.no_grad():
                up: Any = ours.model.get_parameter("model.layers.1.mlp_block.up_proj.weight")
                up.to_local().fill_(3e38)
        error = pytest.raises(WriterFailedError, match="the first rank says")
        if ranks.is_writer:
            error = pytest.raises(
                DivergedError, match=r"the output of model\.layers\.1\.mlp_block.* first in row 0"
            )
        with error:
            ours.step()
    if ranks.is_writer:
        kept = load_file(out / "diverged-0000001.safetensors")
        assert torch.equal(kept["tokens"], ours.packer.batch(0, 12).tokens)


def three(ranks: Ranks, values: dict[str, Any], folder: Path) -> None:
    with train(ranks, values, folder / "two-to-three") as ours:
        assert ours.progress.step == STOP
        ours.run()
    gradients(ranks, values, folder)


@pytest.mark.thorough
def test_one_two_and_three_ranks(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    train_values = {"steps": STEPS, "rows": 6, "accumulation": 2, "eval_every": 2}
    values = recipe(**train_values, learning_rate=3e-3).to_dict()
    with train(Ranks(), values, tmp_path / "one") as ours:
        drawn = weights(ours)
        ours.run()
        alone = weights(ours)
        export(ours)
    with train(Ranks(), values, tmp_path / "from-one") as ours:
        for _ in range(STOP):
            ours.step()
        ours.save()
    on_ranks(2, two, values, tmp_path)
    shutil.copytree(tmp_path / "from-two", tmp_path / "two-to-three")
    on_ranks(3, three, values, tmp_path)
    with train(Ranks(), values, tmp_path / "from-two") as ours:
        assert ours.progress.step == STOP
        ours.run()

    for name in ("straight", "stopped", "from-one", "from-two", "two-to-three"):
        with train(Ranks(), values, tmp_path / name) as ours:  # any number of ranks is read by one
            assert ours.progress.step == STEPS
            for key, weight in weights(ours).items():
                torch.testing.assert_close(weight, alone[key], rtol=1e-4, atol=2e-6, msg=key)
    assert log(tmp_path / "straight") == log(tmp_path / "stopped")
    for mine, theirs in zip(log(tmp_path / "one"), log(tmp_path / "straight"), strict=True):
        assert theirs == pytest.approx(mine, rel=1e-5)
    assert any("held_out_bits_per_byte" in entry for entry in log(tmp_path / "straight"))
    ours, theirs = (load_model(tmp_path / name / "model") for name in ("one", "straight"))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine, other, rtol=2**-7, atol=1e-5)
    for name, change in VARIANTS.items():
        entries = json.loads((tmp_path / f"{name}.json").read_text())
        narrow = "bfloat16" in change.values()
        for mine, other in zip(
            steps(Ranks(), values, change, tmp_path / f"{name}-one"), entries, strict=True
        ):
            for key in ("loss", "gradient_norm"):
                assert other[key] == pytest.approx(mine[key], rel=1e-2 if narrow else 1e-4), name
    # A rank's file holds its part alone.
    [*files] = (tmp_path / "straight" / "checkpoints" / "step-0000005").glob("*.safetensors")
    embedding = [load_file(file)["model.embed_tokens.weight"].shape for file in files]
    assert embedding == [(240, 16), (240, 16)]

    for world in (2, 3):
        before, found, entry = torch.load(tmp_path / f"gradients-{world}.pt")
        with train(Ranks(), values, tmp_path / "one") as ours:
            model = ours.model.double()
            model.load_state_dict(before)
            assert all(torch.equal(drawn[name], weight) for name, weight in before.items())
            count = 0
            for row in range(12):
                batch = ours.packer.batch(row, 1)
                row_nats(model, batch)[0].backward()
                count += int(batch.mask.sum())
            for name, parameter in model.named_parameters():
                exact = parameter.grad / count
                torch.testing.assert_close(
                    found[name].double(), exact, rtol=2e-4, atol=2e-7, msg=name
                )
            norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm() / count
            assert entry["gradient_norm"] == pytest.approx(float(norm), rel=1e-5)


def test_rows_that_cannot_be_shared_are_refused() -> None:
    assert [Ranks(rank, 3).share(6) for rank in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 6)]
    with pytest.raises(ValueError, match=r"train\.rows is 5, which 2 ranks cannot share"):
        Ranks(0, 2).share(5)
