"""`griffin finetune` by hand: right input, wrong input, the recipe that it prints."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from griffin.cli import main
from griffin.train.recipe import load_recipe


def _finetune(*words: Any) -> Result:
    return CliRunner().invoke(main, ["finetune", *map(str, words)])


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    path = tmp_path / "my chats.jsonl"
    rows = [
        [
            {"role": "user", "content": f"{number}?"},
            {"role": "assistant", "content": f"It is {number}."},
        ]
        for number in range(20)
    ]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return path


def test_a_command_says_which_recipe_it_is(chats: Path, tmp_path: Path) -> None:
    given = ("nano", "--data", chats, "--set", "tune.rank=4", "--set", "train.steps=2")
    printed = _finetune(*given, "--print-recipe")
    assert printed.exit_code == 0, printed.output
    file = tmp_path / "mine.toml"
    file.write_text(printed.output)
    recipe = load_recipe(file)
    assert recipe.tune is not None and recipe.tune.rank == 4
    assert (recipe.train.steps, recipe.train.epochs) == (2, 0.0)
    assert [source.path for source in recipe.data.sources] == [str(chats)]
    again = _finetune(file, "--print-recipe")
    assert again.output == printed.output
    other = _finetune(file, "--method", "dpo", "--print-recipe")
    assert other.exit_code == 2 and "by which method it learns" in other.output


def test_a_reward_s_file_is_named_from_everywhere(chats: Path) -> None:
    words = "nano", "--data", chats, "--method", "rloo", "--print-recipe", "--reward"
    assert f'reward = "{Path.cwd()}/mine.py:reward"' in _finetune(*words, "mine.py:reward").output
    assert 'reward = "exact"' in _finetune(*words, "exact").output


def test_a_lora_from_chats_to_answers(chats: Path, tmp_path: Path) -> None:
    words = ("nano", "--data", chats, "--set", "train.steps=2", "--set", "train.length=64")
    done = _finetune(*words, "--out", tmp_path / "run", "--json", "--threads", 1)
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout.splitlines()[-1])
    assert Path(results["adapter"]).is_dir()
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert all(0 < json.loads(entry)["matrix_share"] < 2 for entry in log) and log
    assert len(results["before"]["answers"]) == len(results["after"]["answers"]) > 0
    said = CliRunner().invoke(
        main,
        ["generate", "--model", "nano", "--adapter", results["adapter"], "--max-tokens", "2", "1"],
    )
    assert said.exit_code == 0, said.output
    other = _finetune(*words, "--out", tmp_path / "run", "--set", "tune.rank=2")
    assert other.exit_code == 2 and "tune.rank: 16 there, 2 here" in other.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nano",), "--data is missing"),
        (("nano", "--data", "nowhere.jsonl"), "nowhere.jsonl: there is no such file"),
        (("nano", "--data", "{chats}", "--method", "sft"), "'sft' is not one of"),
        (("nano", "--data", "{chats}", "--method", "grpo"), "needs tune.reward"),
        (("nano", "--data", "{chats}", "--set", "tune.rnk=2"), "rnk"),
        (("nano", "--data", "{chats}", "--set", "tune.rank=0"), "at least 1, not 0"),
        (("nano", "--data", "{chats}", "--set", "tune.r=8"), "here it is tune.rank"),
        (("nano", "--data", "{chats}", "--set", "tune.lora_alpha=8"), "here it is tune.alpha"),
        (("nano", "--data", "{chats}", "--set", "tune.method=full"), "give --method full alone"),
        (("nano", "--data", "{chats}", "--reward", "x.py:f"), "--reward is for --method jbond"),
        (
            ("nano", "--data", "{chats}", "--set", "train.steps=2", "--set", "train.epochs=3"),
            "one budget, which replaces the recipe's, not train.steps and train.epochs",
        ),
        (
            ("nano", "--data", "{chats}", "--set", "train.seed=99999999999999999999"),
            "train.seed must be below 2**63",
        ),
        (("nano", "--data", "{chats}", "--set", "tune.targets=['x']"), "must be among"),
        (("no-such-model-here", "--data", "{chats}"), "no-such-model-here"),
        (("nano", "--data", "{chats}", "--method", "full", "--set", "tune.base=int4"), "take it"),
        (("{nothing}.toml",), "no recipe at"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: tuple[str, ...], said: str, chats: Path, tmp_path: Path
) -> None:
    made = [word.format(chats=chats, nothing=tmp_path / "nothing") for word in words]
    done = _finetune(*made, "--out", tmp_path / "run")
    assert done.exit_code == 2 and said in done.output, done.output
    assert "Traceback" not in done.output


def test_a_recipe_for_the_other_verb_says_so(tmp_path: Path) -> None:
    file = tmp_path / "plain.toml"
    file.write_text('from = "nano"\n[train]\nsteps = 1\n')
    done = _finetune(file)
    assert done.exit_code == 2 and "it is for griffin train" in done.output
    file.write_text('from = "nano"\n[train]\nsteps = 1\n[tune]\nmethod = "lora"\n')
    done = CliRunner().invoke(main, ["train", str(file)])
    assert done.exit_code == 2 and "griffin finetune" in done.output


def test_rows_that_were_shown_and_then_edited_are_read_anew(chats: Path, tmp_path: Path) -> None:
    given = ("nano", "--data", chats, "--show-data", 1, "--out", tmp_path / "run")
    told = _finetune(*given).output
    assert "19 documents to train on" in told
    # Answers such as "It is 7." and an end of the turn, which has no bytes: not of all tokens.
    found = re.search(r"training tokens, of which (\d+) are learned, (\d\.\d\d) bytes each", told)
    assert found is not None and 0.8 < float(found[2]) < 4
    assert "prepared before" in _finetune(*given).output
    lines = chats.read_text().splitlines(keepends=True)
    chats.write_text("".join(lines[:10]))
    assert "prepared before" not in _finetune(*given).output
