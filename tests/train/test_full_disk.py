"""A disk that fills up, or becomes read-only, at any moment of a run: one clear line, nothing half
written, and the run that goes on has the bits of one that always had room."""

from __future__ import annotations

import errno
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from griffin.cli import main
from griffin.train.data import journal, source
from griffin.train.data.journal import Journal
from griffin.train.diverged import DivergedError
from griffin.train.export import export
from griffin.train.files import write_text
from griffin.train.loop import Trainer
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.train.run_log import RunLog
from griffin.train.stopping import Interrupted
from tests.support.full_disk import FaultyDisk, faulty, short_files
from tests.support.signalling import signal_after
from tests.support.toy_folder import write_toy
from tests.train.test_kills import left

Build = Callable[..., Recipe]


@pytest.fixture
def made(recipe: Build, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make a run in a folder from its beginning, or from where it is, to its end."""
    monkeypatch.setattr(journal, "_EVERY", 0.0)
    monkeypatch.setattr(source, "_RECORDS", 5)
    values = recipe(steps=4, checkpoint_minutes=1e-9, eval_every=2, eval_tokens=300, keep=1)

    def make(out: Path) -> None:
        with Trainer(values, out, Reporter(quiet=True)) as ours:
            ours.run()
            export(ours)

    return make


def _half_written(out: Path) -> list[str]:
    return [p.name for p in out.rglob("*") if p.name.endswith(".part") or ".partial-" in p.name]


def _clear(error: OSError, out: Path) -> None:
    """The error is one line, which names what could not be written."""
    said = str(error)
    assert "\n" not in said and f"{out}" in said and len(said) < 500, said


def _fails(
    make: Callable[[Path], None], out: Path, whole: dict[str, Any], number: int, after: int
) -> None:
    """Have all changes from one moment on fail; then there is room again."""
    read_only = number == errno.EROFS
    with faulty(FaultyDisk(out, number, after, read_only)), pytest.raises(OSError) as failed:
        make(out)
    assert not isinstance(failed.value, FileNotFoundError | FileExistsError), failed.value
    _clear(failed.value, out)
    assert read_only or not _half_written(out), after
    make(out)
    found = left(out)
    assert found.keys() == whole.keys()
    for name, expected in whole.items():
        assert found[name] == expected, (name, after)


def _sweep(make: Callable[[Path], None], folder: Path, times: int | None, number: int) -> None:
    """Have the disk fail at some moments of a run, or, if `times` is None, at each."""
    with faulty(FaultyDisk(folder / "whole", removing=number == errno.EROFS)) as disk:
        make(folder / "whole")
    whole, moments = left(folder / "whole"), range(disk.seen)
    assert len(moments) > 40
    chance = random.Random(number)
    for after in moments if times is None else chance.sample(moments, times):
        _fails(make, folder / f"run-{after}", whole, number, after)


@pytest.mark.thorough
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
def test_some_moments(made: Callable[[Path], None], tmp_path: Path, number: int) -> None:
    _sweep(made, tmp_path, 8, number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
def test_every_moment(made: Callable[[Path], None], tmp_path: Path, number: int) -> None:
    _sweep(made, tmp_path, None, number)


@pytest.mark.thorough
def test_files_that_are_cut(made: Callable[[Path], None], tmp_path: Path) -> None:
    """No file may be longer than so much, then a little more, and so on, always in the same run:
    what was written of a file is not taken for the whole."""
    made(tmp_path / "whole")
    whole, out = left(tmp_path / "whole"), tmp_path / "run"
    longest = max(p.stat().st_size for p in (tmp_path / "whole").rglob("*") if p.is_file())
    size, cut = 30, set[str]()
    while size < longest:
        try:
            with short_files(size):
                made(out)
        except OSError as error:
            _clear(error, out)
            cut.add(str(error).partition("could not write ")[2].partition(":")[0])
            assert not _half_written(out), size
        size += 1 + size // 4
    names = {Path(each).name for each in cut}
    assert {"journal.jsonl", "tokenizer.json", ".step-0000001.part"} <= names, names
    made(out)
    found = left(out)
    assert found.keys() == whole.keys()
    for name, expected in whole.items():
        assert found[name] == expected, name


def test_a_tokenizer_of_a_checkpoint_is_copied_whole(corpus_folder: Path, tmp_path: Path) -> None:
    """Of one that is cut nothing is there; it is whole when there is room."""
    base, out = write_toy(tmp_path / "base"), tmp_path / "run"
    whole = (base / "tokenizer.json").read_bytes()
    recipe = Recipe.from_dict(
        {
            "from": str(base),
            "data": {"source": "files", "root": str(corpus_folder), "held_out": 0.2},
            "train": {"steps": 2, "rows": 2, "length": 24, "warmup_steps": 1},
        }
    )
    fails = pytest.raises(OSError, match=r"could not write .*tokenizer\.json: file too large")
    with short_files(len(whole) - 1), fails:
        Trainer(recipe, out, Reporter(quiet=True))
    assert not (out / "tokenizer.json").exists() and not _half_written(out)
    Trainer(recipe, out, Reporter(quiet=True)).close()
    assert (out / "tokenizer.json").read_bytes() == whole and not _half_written(out)


def test_a_journal_goes_on_when_there_is_room(tmp_path: Path) -> None:
    block, noted = {"a.bin": b"1" * 4000, "b.bin": b"2" * 300}, {"seen": 1}
    fails = pytest.raises(OSError, match=r"could not write .*a\.bin: file too large")
    with fails as failed, short_files(6000), Journal(tmp_path, "x") as ours:
        for _ in range(10):
            ours.append(block, noted)
            ours.save()
    _clear(failed.value, tmp_path)
    with Journal(tmp_path, "x") as ours:
        assert ours.blocks == 1 and ours.known == {"a.bin": 4000, "b.bin": 300}
        ours.append(block, noted)
    assert (tmp_path / "a.bin").read_bytes() == b"1" * 8000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "b.bin", "journal.jsonl"]


def test_a_line_of_the_log_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path, entry = tmp_path / "log.jsonl", {"step": 1, "loss": 2.5}
    log = RunLog(path, 0)
    log.add(entry)
    size = path.stat().st_size
    with short_files(size + 9), pytest.raises(OSError, match=r"log\.jsonl: file too large"):
        log.add(entry | {"step": 2})
    assert path.stat().st_size == size
    log.add(entry | {"step": 2})
    log.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_an_old_text_stays_where_a_new_one_finds_no_room(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    write_text(path, "old")
    with short_files(100), pytest.raises(OSError, match=r"index\.json: file too large") as failed:
        write_text(path, "new" * 100)
    assert failed.value.errno == errno.EFBIG
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_stop_whose_checkpoint_finds_no_room_is_an_error(recipe: Build, tmp_path: Path) -> None:
    """Nobody is told that everything is in a checkpoint that is not there."""
    with Trainer(recipe(), tmp_path / "run", Reporter(quiet=True)) as ours:
        ours.objective.forward = signal_after(2, ours.objective.forward)
        disk = FaultyDisk(ours.checkpoints, errno.ENOSPC, 0)
        fails = pytest.raises(OSError, match=r"could not write .*step-0000002")
        with faulty(disk), fails as failed:
            ours.run()
        assert not isinstance(failed.value, Interrupted) and not _half_written(ours.out)


def test_a_best_checkpoint_without_room_leaves_the_one_before(
    recipe: Build, tmp_path: Path
) -> None:
    with Trainer(recipe(eval_every=1), tmp_path / "run", Reporter(quiet=True)) as ours:
        ours.step()
        ours._keep_best(3.0)
        best = ours.checkpoints / "best"
        before = {path.name: path.read_bytes() for path in best.iterdir()}
        ours.step()
        with short_files(2000), pytest.raises(OSError, match=r"could not write .*best"):
            ours._keep_best(2.0)
        assert {path.name: path.read_bytes() for path in best.iterdir()} == before
        assert not _half_written(ours.out)
        ours._keep_best(1.0)
        assert {path.name: path.read_bytes() for path in best.iterdir()} != before


def test_an_export_without_room_leaves_nothing(recipe: Build, tmp_path: Path) -> None:
    """Neither half of the weights nor a model without its tokenizer; and the next try is not
    refused for what this one left."""
    with Trainer(recipe(), tmp_path / "run", Reporter(quiet=True)) as ours:
        ours.step()
        ours.save()
    out, words = tmp_path / "model", ["export", str(tmp_path / "run"), str(tmp_path / "model")]
    with faulty(FaultyDisk(tmp_path)) as disk:
        assert CliRunner().invoke(main, words).exit_code == 0
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(whole) == 4 and disk.seen > 4
    full = [FaultyDisk(tmp_path, errno.ENOSPC, after) for after in range(disk.seen)]
    for block in (short_files(len(whole["model.safetensors"]) // 2), *map(faulty, full)):
        shutil.rmtree(out, ignore_errors=True)
        with block:
            done = CliRunner().invoke(main, words)
        assert done.exit_code == 1, done.output
        [line, hint] = done.stderr.splitlines()
        said = rf"griffin: \[Errno \d+\] could not write {out}: (file too large|no space left .*)"
        assert re.fullmatch(said, line) and "--debug" in hint, line
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert {path.name for path in out.iterdir()} == whole.keys()


def test_a_divergence_is_told_also_where_its_rows_cannot_be_kept(
    recipe: Build, tmp_path: Path
) -> None:
    with Trainer(recipe(), tmp_path / "run", Reporter(quiet=True)) as ours:
        with torch.no_grad():
            ours.model.get_parameter("model.layers.1.mlp_block.up_proj.weight").fill_(3e38)
        said = r"Its rows are not kept \(.*diverged-0000001\.safetensors"
        with short_files(100), pytest.raises(DivergedError, match=said):
            ours.step()
        assert not list(ours.out.glob("*diverged*"))
        with pytest.raises(DivergedError, match="Its rows are in"):
            ours.step()
