"""Whose folder it is: a recipe's from its first checkpoint on, a process's while it works there."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from griffin.train.checkpoint import save_best
from griffin.train.data import prepare
from griffin.train.data.show import rows_of_run
from griffin.train.folder import _differences
from griffin.train.loop import Trainer
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from tests.support.ranks import forking

Build = Callable[..., Recipe]


def _reporter() -> tuple[Reporter, io.StringIO]:
    reporter, said = Reporter(), io.StringIO()
    reporter.console = Console(file=said, soft_wrap=True)
    return reporter, said


def _open(recipe: Recipe, out: Path) -> str:
    """Open a run and leave it before its first step; return what was said."""
    reporter, said = _reporter()
    Trainer(recipe, out, reporter).close()
    return said.getvalue()


def _data(out: Path) -> dict[str, bytes]:
    files = (path for path in (out / "data").rglob("*") if path.is_file())
    files = (*files, out / "tokenizer.json")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """How often data was prepared: a list that grows."""
    times: list[object] = []
    run = prepare._Preparation.run
    monkeypatch.setattr(prepare._Preparation, "run", lambda self: (times.append(self), run(self)))
    return times


def test_a_folder_without_a_checkpoint_is_taken_by_another_recipe(
    recipe: Build, tmp_path: Path, prepared: list[object]
) -> None:
    """As after --show-data, or a run that was stopped before it saved: a rate is corrected, and the
    data that was prepared is used."""
    out = tmp_path / "run"
    quiet = Reporter(quiet=True)
    rows_of_run(recipe(), out, quiet, lambda: None)
    data = _data(out)
    said = _open(recipe({"packing": "best-fit"}, learning_rate=0.5, length=48), out)
    assert f"{out} was another recipe's (" in said
    assert "train.learning_rate: 0.001 there, 0.5 here" in said
    assert "has no checkpoint: this one takes it" in said and "prepared before" in said
    assert len(prepared) == 1 and _data(out) == data
    kept = json.loads((out / "recipe.json").read_text())
    assert kept["recipe"]["train"]["learning_rate"] == 0.5 and "extended" not in kept
    # It is the second one's now, to which it is nothing to speak of; the first takes it back.
    second = recipe({"packing": "best-fit"}, learning_rate=0.5, length=48)
    assert "another recipe" not in _open(second, out)
    assert "takes it" in _open(recipe(), out) and len(prepared) == 1


@pytest.mark.parametrize("change", ["held_out", "vocabulary", "folder"])
def test_other_data_is_prepared_anew(
    recipe: Build, tmp_path: Path, change: str, prepared: list[object]
) -> None:
    out, fresh = tmp_path / "run", tmp_path / "fresh"
    first, values = recipe(), recipe().to_dict()
    if change == "held_out":
        values["data"]["held_out"] = 0.4
    elif change == "vocabulary":
        values["model"]["vocab_size"] = 400
    else:  # the same words in a recipe that lies elsewhere mean other documents
        root = Path(values["data"]["root"])
        (root.parent / "other").mkdir(exist_ok=True)
        for number in range(4):
            (root.parent / "other" / f"{number}.py").write_text(f"x = {number}\n" * 30)
        values["data"]["root"] = "."
        first = Recipe.from_dict(values, root)
        values["train"]["steps"] = 5
    second = Recipe.from_dict(values, first.folder.parent / "other")
    _open(first, out)
    before = _data(out)
    said = _open(second, out)
    assert "takes it" in said and "documents to train on" in said and len(prepared) == 2
    _open(second, fresh)
    assert _data(out) == _data(fresh) != before


def test_of_sources_that_are_read_no_more_nothing_stays(
    recipe: Build, corpus_folder: Path, tmp_path: Path
) -> None:
    values = recipe().to_dict()
    for names in (["a", "b"], ["b"]):
        tables = [{"name": name, "path": str(corpus_folder), "format": "text"} for name in names]
        for table, part in zip(tables, ("part0", "part1"), strict=False):
            table["include"] = [f"{part}/*.py"]  # pyright: ignore[reportArgumentType]
        values["data"] = {"source": tables, "held_out": 0.2}
        _open(Recipe.from_dict(values), tmp_path / "run")
    there = sorted(path.name for path in (tmp_path / "run" / "data").iterdir())
    assert there == ["b", "index.json"]


def test_a_recipe_that_turns_out_impossible_takes_nothing(
    recipe: Build, tmp_path: Path, prepared: list[object]
) -> None:
    """A pattern that matches nothing, a budget that cannot be read: what was there is there."""
    out = tmp_path / "run"
    _open(recipe(), out)
    before, whose = _data(out), (out / "recipe.json").read_bytes()
    with pytest.raises(ValueError, match="0 documents"):
        _open(recipe({"include": ["*.nothing"]}), out)
    with pytest.raises(ValueError, match="less than one row"):
        _open(recipe(length=10**6), out)
    assert _data(out) == before and (out / "recipe.json").read_bytes() == whose
    assert "another recipe" not in _open(recipe(), out)
    assert len(prepared) == 2, "the second of them is the one that was refused"


def test_an_impossible_recipe_leaves_its_data_to_no_other(recipe: Build, tmp_path: Path) -> None:
    """It prepared data of its own, then was refused: the folder's owner does not train on that."""
    out, fresh = tmp_path / "run", tmp_path / "fresh"
    _open(recipe(), out)
    with pytest.raises(ValueError, match="less than one row"):
        _open(recipe({"held_out": 0.4}, length=10**6), out)
    _open(recipe(), out)
    _open(recipe(), fresh)
    assert _data(out) == _data(fresh)


@pytest.mark.parametrize("kind", ["newest", "best", "damaged", "copy"])
def test_checkpoints_are_nobody_elses(recipe: Build, tmp_path: Path, kind: str) -> None:
    with Trainer(recipe(), tmp_path / "run", Reporter(quiet=True)) as ours:
        if kind == "best":
            save_best(ours.checkpoints, ours.model, ours.progress)
        else:
            ours.step()
            path = ours.save()
            if kind in ("damaged", "copy"):
                path.rename(path.with_name("damaged-step-0000001" if kind == "damaged" else "mine"))
    with pytest.raises(ValueError, match="holds a run of another recipe"):
        _open(recipe(learning_rate=0.5), tmp_path / "run")


def test_a_folder_that_cannot_be_made_says_why(
    recipe: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(ValueError, match=r"--out .*/file is a file; a run needs a folder"):
            _open(recipe(), out)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "x")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ValueError, match=r"--out .*new cannot be made: read-only file system; ch"):
        _open(recipe(), tmp_path / "new")


def test_only_what_differs_in_a_table_is_told() -> None:
    there = {"data": {"source": [{"name": "a", "path": "A"}, {"name": "b", "path": "C"}]}}
    here = {"data": {"source": [{"name": "a", "path": "B"}, {"name": "b", "path": "C"}]}}
    assert _differences(there, here) == {"data.source[0].path": "'A' there, 'B' here"}


def _start(
    values: dict[str, Any], out: Path, barrier: Any, told: Any, hold: Any, leave: Any
) -> None:
    barrier.wait()
    try:
        with Trainer(Recipe.from_dict(values), out, Reporter(quiet=True)):
            told.put((os.getpid(), values["train"]["learning_rate"], ""))
            hold.wait()
    except ValueError as error:
        told.put((os.getpid(), 0.0, str(error)))
    leave.wait()


def test_of_two_starters_with_other_recipes_one_takes_the_folder(
    recipe: Build, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    _open(recipe(), out)
    data, context = _data(out), forking()
    barrier, told = context.Barrier(2), context.Queue()
    hold, leave = context.Event(), context.Event()
    starters = [
        context.Process(
            target=_start,
            args=(recipe(learning_rate=rate).to_dict(), out, barrier, told, hold, leave),
        )
        for rate in (0.25, 0.5)
    ]
    for starter in starters:
        starter.start()
    try:
        found = sorted((told.get(timeout=100) for _ in starters), key=lambda each: each[2])
        (winner, rate, _), (loser, _, error) = found
        assert {winner, loser} == {starter.pid for starter in starters}
        assert f"process {winner} is training in {out}" in error
        kept = json.loads((out / "recipe.json").read_text())
        assert kept["recipe"]["train"]["learning_rate"] == rate and _data(out) == data
    finally:
        hold.set()
        leave.set()
        for starter in starters:
            starter.join(60)
