"""Examinations of the model in the box: what counts as right, and what is reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from griffin.loading import load
from mini.__main__ import main
from mini.exam import examine
from mini.reward import reward, right


@pytest.mark.parametrize(
    ("given", "expected", "so"),
    [
        ("12 + 34 = 46", "46", True),
        ("46 - 12 = 34", "46", False),
        ("3 - 5 = -2", "-2", True),
        ("9 - 2 = 7.", "7", True),
        ("", "7", False),
        ("Yes, a dog is an animal.", "Yes", True),
        ("No, but yes.", "Yes", False),
        ("Yesterday", "Yes", False),
        ("A dog is a kind of animal.", "animal", True),
        ("A dog is a kind of animals.", "animal", False),
        ("It gives 'OWL'.", "'OWL'", True),
        ("It gives 'owl'.", "'OWL'", False),
        ("[3, 2]", "[3, 2]", True),
        ("I don't know what a glomp is.", "I don't know", True),
    ],
)
def test_what_is_right(given, expected, so):
    assert right(given, expected) is so


def test_a_reward_says_how_nearly():
    row = {"answer": "o-w-l"}
    found = [reward("", given, row) for given in ("o-w-l", "o-w-l.", "o-w-k", "a-w-l", "")]
    assert found[:2] == [1.0, 1.0] and found[2] == found[3] == 0.4 and found[4] == 0.0
    assert reward("", "2 + 3 = 16", {"answer": "15"}) == 0.25


def test_an_examination_is_graded_and_kept(tmp_path: Path):
    exams = tmp_path / "corpus" / "exams"
    exams.mkdir(parents=True)
    llm = load("nano")
    ask = [{"role": "user", "content": "import"}]
    says = llm.chat(ask, temperature=0.0, max_tokens=64).text
    rows = [{"prompt": ask, "answer": answer} for answer in (says.split()[0], "owl", "owl", "x")]
    (exams / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = list[object]()
    (grade,) = examine(llm, exams, tmp_path / "out", told.append, most=3)
    assert told == [grade]
    assert (grade.questions, grade.right, grade.commonest) == (3, 1 / 3, 2 / 3)
    kept = [json.loads(line) for line in (tmp_path / "out" / "words.jsonl").open()]
    assert [(row["given"], row["right"]) for row in kept] == [(says, w == 0) for w in range(3)]
    command = ["exam", "--model", "nano", "--corpus", str(tmp_path / "corpus"), "--most", "3"]
    done = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "again")])
    assert done.exit_code == 0 and "words" in done.output
    (again,) = json.loads((tmp_path / "again" / "grades.json").read_text())["grades"]
    assert again["right"] == grade.right


def test_no_examinations_is_one_line(tmp_path: Path):
    done = CliRunner().invoke(main, ["exam", "--model", "nano", "--corpus", str(tmp_path)])
    assert done.exit_code == 1 and "python -m mini sources" in done.output
