from __future__ import annotations

import json
import os
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from griffin.train import checkpoint as module
from griffin.train.checkpoint import latest_checkpoint, load_checkpoint
from griffin.train.export_run import export_run
from griffin.train.loop import Trainer
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.train.scale import sharded_files

FILE = "shard-00001-model-00001-of-00001.safetensors"


def _forget_digests(path: Path) -> None:
    """Make a checkpoint as runs wrote it before December 2026."""
    told = json.loads((path / "progress.json").read_text())
    assert set(told.pop("files")) == {file.name for file in path.glob("*.safetensors")}
    (path / "progress.json").write_text(json.dumps(told))


def test_everything_comes_back(trainer: Callable[..., Trainer]) -> None:
    ours = trainer()
    for _ in range(3):
        ours.step()
    path = ours.save()
    other = trainer("other", seed=1)
    progress = load_checkpoint(path, other.model, other.optimizer)
    assert progress == ours.progress
    for mine, theirs in zip(ours.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        for key, value in ours.optimizer.state[mine].items():
            assert torch.equal(value, other.optimizer.state[theirs][key])


def test_only_the_newest_stay(trainer: Callable[..., Trainer]) -> None:
    ours = trainer(keep=2)
    for _ in range(4):
        ours.step()
        ours.save()
    assert sorted(p.name for p in ours.checkpoints.iterdir()) == ["step-0000003", "step-0000004"]
    assert latest_checkpoint(ours.checkpoints) == ours.checkpoints / "step-0000004"


def test_a_full_disk_leaves_the_older_checkpoint_alone(
    trainer: Callable[..., Trainer],
) -> None:
    ours = trainer()
    ours.step()
    kept = ours.save()
    ours.step()
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((kept / FILE).stat().st_size // 2, room[1]))
    try:
        with pytest.raises(OSError, match=r"could not write .*step-0000002.part: .*too large"):
            ours.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, room)
    assert [p.name for p in ours.checkpoints.iterdir()] == [kept.name]
    assert trainer().progress.step == 1


@pytest.mark.parametrize("damage", [FILE, "progress.json"])
def test_torn_files_are_named(trainer: Callable[..., Trainer], damage: str) -> None:
    ours = trainer()
    ours.step()
    path = ours.save()
    content = (path / damage).read_bytes()
    (path / damage).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"step-0000001 is not a readable checkpoint"):
        load_checkpoint(path, ours.model, ours.optimizer)


def test_another_shape_is_named(trainer: Callable[..., Trainer]) -> None:
    ours = trainer()
    ours.step()
    path = ours.save()
    _forget_digests(path)
    weights = load_file(path / FILE)
    save_file(weights | {"model.final_norm.weight": torch.zeros(3)}, path / FILE)
    expected = r"final_norm\.weight should have shape \(16,\), found \(3,\)"
    with pytest.raises(ValueError, match=expected):
        load_checkpoint(path, ours.model, ours.optimizer)
    del weights["model.final_norm.weight.exp_avg"]
    save_file(weights, path / FILE)
    with pytest.raises(ValueError, match=r"exp_avg should have shape \(16,\), found nothing"):
        load_checkpoint(path, ours.model, ours.optimizer)


def test_what_was_written_before_ranks_is_read(trainer: Callable[..., Trainer]) -> None:
    """Whole tensors, weights and moments in a file each."""
    ours = trainer()
    ours.step()
    path = ours.save()
    _forget_digests(path)
    tensors = load_file(path / FILE)
    moments = {name for name in tensors if name.endswith((".step", ".exp_avg", ".exp_avg_sq"))}
    save_file({n: t for n, t in tensors.items() if n in moments}, path / "optimizer.safetensors")
    save_file({n: t for n, t in tensors.items() if n not in moments}, path / "weights.safetensors")
    (path / FILE).unlink()
    again = trainer()
    assert again.progress == ours.progress
    assert all(map(torch.equal, ours.model.parameters(), again.model.parameters()))
    assert again.step() == ours.step()


def test_parts_of_many_files_make_one_checkpoint(
    trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded_files, "FILE_BYTES", 4096)
    ours = trainer()
    ours.step()
    files = sorted(ours.save().glob("*.safetensors"))
    assert len(files) > 3
    again = trainer()
    assert all(map(torch.equal, ours.model.parameters(), again.model.parameters()))
    files[1].unlink()
    with pytest.raises(ValueError, match=r"should have shape .*, found nothing"):
        trainer()


def test_progress_is_plain_json(trainer: Callable[..., Trainer]) -> None:
    ours = trainer()
    ours.step()
    written = json.loads((ours.save() / "progress.json").read_text())
    assert (written["step"], written["tokens"], written["rows"]) == (1, 48, 2)


def test_a_damaged_checkpoint_is_set_aside_and_an_older_one_taken(
    trainer: Callable[..., Trainer],
) -> None:
    ours = trainer(steps=4)
    for _ in range(2):
        ours.step()
        ours.save()
    newest = ours.checkpoints / "step-0000002"
    (newest / FILE).write_bytes(b"")
    (ours.checkpoints / ".step-0000003.part").mkdir()
    (ours.checkpoints / ".step-0000003.part" / "weights.safetensors").write_bytes(b"half")
    resumed = trainer(steps=4)
    assert resumed.progress.step == 1
    assert sorted(p.name for p in ours.checkpoints.iterdir()) == [
        "damaged-step-0000002",
        "step-0000001",
    ]
    resumed.step()
    saved = resumed.save()
    assert saved == newest
    # All damaged: nothing is renamed, and it does not begin anew by itself.
    for path in ours.checkpoints.glob("step-*"):
        (path / "progress.json").unlink()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"step-0000002 .*step-0000001 .*No other is left"):
            trainer(steps=4)


def test_a_byte_that_was_flipped_is_damage(trainer: Callable[..., Trainer]) -> None:
    """Whether of weights or moments, in resume and export alike; the one before is taken."""
    ours = trainer()
    for _ in range(2):
        ours.step()
        ours.save()
    file = ours.checkpoints / "step-0000002" / FILE
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"step-0000002 .*{FILE} is not what was written"):
        export_run(ours.out, ours.out / "exported", 2)
    ours.close()
    assert trainer().progress.step == 1
    assert (ours.checkpoints / "damaged-step-0000002").is_dir()


def test_what_is_set_aside_is_said(trainer: Callable[..., Trainer]) -> None:
    ours = trainer()
    ours.step()
    kept = ours.save()
    ours.step()
    (ours.save() / "progress.json").write_text("{")
    told: list[str] = []
    assert module.resume(ours.checkpoints, ours.model, ours.optimizer, told.append) is not None
    assert (
        "step-0000002 is not a readable checkpoint" in told[0]
        and "damaged-step-0000002" in (told[0])
    )
    assert told[1] == f"going on from {kept}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become one who may not write")
def test_a_folder_that_cannot_be_written_is_told_and_left_alone(
    recipe: Callable[..., Recipe],
) -> None:
    with tempfile.TemporaryDirectory() as base:
        out = Path(base) / "run"
        with Trainer(recipe(), out, Reporter(quiet=True)) as ours:
            ours.step()
            ours.save()
        Path(base).chmod(0o755)
        before = sorted(path.name for path in out.rglob("*"))
        os.seteuid(65534)
        try:
            with pytest.raises(PermissionError, match=r"run\.lock"):
                Trainer(recipe(), out, Reporter(quiet=True))
        finally:
            os.seteuid(0)
        assert sorted(path.name for path in out.rglob("*")) == before
        with Trainer(recipe(), out, Reporter(quiet=True)) as ours:
            assert ours.progress.step == 1


def test_copies_that_somebody_made_stay_and_steps_are_numbers(tmp_path: Path) -> None:
    names = ("step-0000003", "step-9999999", "step-10000000", "step-0000003-mine", "step-x")
    for name in names:
        (tmp_path / name).mkdir()
    assert module.newest_step(tmp_path) == 10_000_000
    module.prune(tmp_path, 1)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["step-0000003-mine", "step-10000000", "step-x"]
