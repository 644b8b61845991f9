"""The induction heads' comparison on a few steps: its task, its resuming, its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.proofs.induction import MARK, compare, right, rows, table, train
from benchmarks.proofs.runs import Runs

FEW: dict[str, Any] = {
    "lengths": (256, 300),
    "rates": (1e-3,),
    "seeds": (0, 1),
    "stages": ((256, 1),),
    "texts": lambda _: 2,
}


def results(folder: Path) -> list[dict[str, Any]]:
    """Return the runs that a folder keeps, without their times."""
    runs = json.loads((folder / "results.json").read_text())["runs"]
    return [{name: run[name] for name in run if name != "seconds"} for run in runs]


def test_a_text_has_two_marks_and_the_answer_after_the_first():
    tokens, answers = rows(50, 64, torch.Generator().manual_seed(0))
    assert ((tokens == MARK).sum(1) == 2).all() and (tokens[:, -1] == MARK).all()
    first = (tokens == MARK).int().argmax(1)
    assert torch.equal(tokens[torch.arange(50), first + 1], answers)
    assert first.min() < 10 and first.max() > 50


def test_what_is_there_is_not_run_again(tmp_path):
    said: list[str] = []
    found = compare(tmp_path, said.append, **FEW)
    assert json.loads((tmp_path / "results.json").read_text()) == found
    assert len(found["runs"]) == 12 and found["hours"] >= 0
    asked = [one for one in found["runs"] if "asked" in one]
    assert {one["asked"] for one in asked} == {"Griffin", "Hawk", "MQA"}
    assert all(set(one["right"]) == {"256", "300"} for one in asked)
    assert sum("MQA, rate 0.001, seed 1: " in line for line in said) == 3
    lines = len(said)
    assert compare(tmp_path, said.append, **FEW) == found and len(said) == lines
    assert (tmp_path / "right.png").read_bytes().startswith(b"\x89PNG")
    assert "| MQA | " in table(found) and "| 256 | 300 |" in table(found)
    with pytest.raises(ValueError, match="give another folder as --out"):
        compare(tmp_path, said.append, **(FEW | {"stages": ((256, 2),)}))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("Hawk", marks=pytest.mark.thorough),
        pytest.param("Griffin", marks=pytest.mark.slow),
        pytest.param("MQA", marks=pytest.mark.slow),
    ],
)
def test_learnt_on_short_texts_it_is_found_in_longer_ones_by_recurrence(name):
    model = train(name, 3e-3, 0, ((16, 300),))
    assert right(model, 16, 64) > 0.85
    far = right(model, 128, 64)
    assert far < 0.35 if name == "MQA" else far > 0.45


@pytest.mark.thorough
def test_ended_and_begun_again_it_finds_the_same(tmp_path):
    """At two places: a run that was not kept is made anew, from its own seed."""
    compare(tmp_path / "whole", str, **FEW)
    kept = list[int]()
    for last in ("Griffin, rate 0.001, seed 0: ", "Hawk, rate 0.001, seed 1: "):

        def die(line: str, last: str = last) -> None:
            if line.startswith(last) and line.endswith("texts of 300"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            compare(tmp_path / "parts", die, **FEW)
        kept.append(len(results(tmp_path / "parts")))
    assert kept == [1, 7]
    compare(tmp_path / "parts", str, **FEW)
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


def test_what_is_told_is_kept_too(tmp_path, monkeypatch):
    def compare(out, say, models):
        say(f"of {', '.join(models)}")
        return {"runs": []}

    monkeypatch.setattr("benchmarks.proofs.induction.compare", compare)
    given = ["induction", "--out", str(tmp_path), "--model", "Hawk"]
    for _ in range(2):
        assert CliRunner().invoke(main, given).exit_code == 0
    assert (tmp_path / "log.txt").read_text().count("of Hawk\n") == 2


def test_processes_side_by_side_lose_nothing(tmp_path):
    """Both looked at the folder while it was empty."""
    first, second = Runs(tmp_path, steps=1), Runs(tmp_path, steps=1)
    first.get({"model": "a"}, lambda: {"right": 1})
    second.get({"model": "b"}, lambda: {"right": 2})
    assert [one["model"] for one in results(tmp_path)] == ["a", "b"]
    assert [one["model"] for one in second.found["runs"]] == ["a", "b"]
