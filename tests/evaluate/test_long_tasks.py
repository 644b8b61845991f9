"""Long texts as tasks of lm-eval: the questions and answers of --long, and what they are told."""

from __future__ import annotations

import json
from typing import Any

import datasets
import lm_eval.tasks
import pytest
from click.testing import CliRunner

from griffin.cli import main
from griffin.evaluate import harness
from griffin.evaluate.harness import Harness
from griffin.evaluate.lm_eval import GriffinLM
from griffin.evaluate.long_tasks import FOLDER, documents
from griffin.evaluate.recall import TASKS
from griffin.evaluate.recalled import measure_recall
from griffin.evaluate.run import measure
from tests.support.made_up_data import load_dataset

LENGTHS = [200, 260]


@pytest.fixture
def ours(monkeypatch):
    """The index of our own tasks alone, made in no time."""
    make = lm_eval.tasks.TaskManager
    monkeypatch.setattr(harness, "TaskManager", lambda **how: make(include_defaults=False, **how))


def test_they_find_what_the_measure_finds(ours, llm):
    told = {"max_seq_lengths": LENGTHS, "questions": 3}
    found = Harness(GriffinLM(llm), metadata=told).measure("griffin_long")["results"]
    how = {"questions": 3, "seed": 1234}
    for each in measure_recall(llm, list(TASKS), LENGTHS, **how):
        assert found[f"griffin_{each.task}"][f"{each.tokens},none"] == pytest.approx(each.exact)
    parts = [found[f"griffin_{task}"]["acc,none"] for task in TASKS]
    assert found["griffin_long"]["acc,none"] == pytest.approx(sum(parts) / len(parts))


def test_a_text_is_as_long_as_it_is_told(folder, llm):
    how: dict[str, Any] = {"task": "recall", "max_seq_lengths": LENGTHS, "questions": 2}
    rows = documents(pretrained=str(folder), **how)["test"].to_list()
    sizes = [len(llm.tokenizer.encode(row["prompt"] + row["answer"])) for row in rows]
    assert [row["tokens"] for row in rows] == [200, 200, 260, 260]
    assert all(160 < size <= 200 for size in sizes[:2])
    assert all(200 < size <= 260 for size in sizes[2:])
    assert rows == documents(tokenizer=str(folder), **how)["test"].to_list(), "always the same"
    with pytest.raises(ValueError, match="nobody says whose: give --metadata"):
        documents(task="recall")


def test_a_needle_lies_in_prose_of_ones_own(folder, tmp_path):
    (tmp_path / "prose.txt").write_text("Owls hunt at night. " * 3, encoding="utf-8")
    how = {"tokenizer": str(folder), "max_seq_lengths": [200], "questions": 1}
    (row,) = documents(task="niah", prose=str(tmp_path / "prose.txt"), **how)["test"].to_list()
    assert row["prompt"].count("Owls hunt at night.") > 1


def test_every_task_has_a_file():
    files = {file.stem for file in FOLDER.glob("*.yaml")}
    assert files == {f"griffin_{task}" for task in (*TASKS, "long")}


def test_the_command(ours, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["griffin", "evaluate", "..."])
    out = tmp_path / "found.json"
    given = ["evaluate", "--model", str(folder), "--tasks", "griffin_induction", "--out", str(out)]
    told = {"max_seq_lengths": [64], "questions": 2}
    done = CliRunner().invoke(main, [*given, "--metadata", json.dumps(told)])
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert [(each["metric"], each["n"]) for each in found["results"]] == [("acc", 2), ("64", 2)]
    assert found["settings"]["metadata"] == told
    for wrong, said in (("[1]", "is no object"), ("{", "is no JSON")):
        done = CliRunner().invoke(main, [*given, "--metadata", wrong])
        assert done.exit_code == 2 and said in done.output


@pytest.mark.thorough
def test_tasks_of_others_are_told_too(llm, manager, monkeypatch):
    """babilong chooses its data by it; ruler and longbench name what is not installed."""

    def told_manager(metadata, **_):
        monkeypatch.setattr(manager._factory, "_meta", metadata)
        return manager

    monkeypatch.setattr(harness, "TaskManager", told_manager)
    asked = []

    def load(path, name=None, **more):
        asked.append(name)
        return load_dataset(path, name, **more)

    monkeypatch.setattr(datasets, "load_dataset", load)
    told = Harness(GriffinLM(llm), limit=2, metadata={"max_seq_lengths": "4k"})
    (values,) = measure(told, ["babilong_qa1"], None)
    assert asked == ["4k"] and [(each.metric, each.n) for each in values] == [("acc", 2)]
    for name, needs in (("niah_single_1", "wonderwords"), ("longbench_qasper", "jieba")):
        (values,) = measure(told, [name], None)
        assert needs in values[0].refused or "cannot be had" in values[0].refused
