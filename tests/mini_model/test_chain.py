"""The whole way from a corpus to the model in the box, rehearsed with a model of nothing."""

from __future__ import annotations

import json
import tomllib
from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from griffin.capacity import model_bytes
from griffin.loading import load
from griffin.model import Griffin, GriffinConfig
from griffin.train.recipe import load_recipe
from mini import chain, corpus, overlap, python_texts, report, seeds, trials
from mini.__main__ import main

ROOT = Path(__file__).parents[2]


def _library(broken):
    """Return what stands for Python's library."""
    functions = "".join(
        f'def read_{n}(file):\n    """Read the document number {n} from a file."""\n\n'
        for n in range(12)
    )
    return iter([(f"module{n}", f"# {n}\n{functions}") for n in range(8)])


@pytest.fixture(scope="module")
def rehearsed(archives, tmp_path_factory):
    """Return the folders of a small corpus and of what was made of it."""
    root = tmp_path_factory.mktemp("rehearsal")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(python_texts, "library", _library)
        corpus.build(root / "corpus", archives, lambda line: None, drawn=80)
    chain.train(root / "corpus", root / "out", 1, lambda line: None, rehearsal=True)
    return root / "corpus", root / "out"


@pytest.mark.thorough
def test_every_step_runs_and_none_twice(rehearsed):
    folder, out = rehearsed
    llm = load(out / chain.NAME, state=out / chain.NAME / "pirate.state")
    assert llm.model.config.width == 64 and llm.talks
    assert {path.name for path in (out / chain.NAME / "licences").iterdir()} >= {"toybox.txt"}
    costs = (out / chain.COSTS).read_text()
    command = ["train", "--corpus", str(folder), "--out", str(out), "--rehearsal"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert done.output.count("done before") == len(json.loads(costs))
    assert (out / chain.COSTS).read_text() == costs
    chats = out / "chats.json"
    said = chats.read_text()
    chats.unlink()
    done = CliRunner().invoke(main, command)
    assert "chats ...\n" in done.output and chats.read_text() == said
    other = CliRunner().invoke(main, command[:-1])
    assert other.exit_code == 1 and "another recipe" in other.output


@pytest.mark.thorough
def test_a_report_has_every_figure_and_a_page_is_made_of_it(rehearsed, tmp_path):
    _, out = rehearsed
    page = tmp_path / "model.md"
    done = CliRunner().invoke(main, ["report", "--out", str(out), "--page", str(page)])
    assert done.exit_code == 0, done.output
    found = json.loads((out / "report.json").read_text())
    assert set(found["skills"]["sums"]["stages"]) == set(chain.EXAMINED)
    shape = load(out / "sft" / "model").model.config
    assert found["model"]["parameters"] * 2 == model_bytes(shape, torch.bfloat16)
    assert set(found["courses"]) == {"J-BOND", "REINFORCE"} and all(found["courses"].values())
    assert (tmp_path / report.PICTURE).read_bytes().startswith(b"\x89PNG")
    assert found["bits_per_byte"]["numbers"]["nano"] and len(found["chats"]) == 2
    assert set(found["formats"]) == {"bfloat16", "int8", "int4"}
    assert found["formats"]["int4"]["bytes"] < found["formats"]["int8"]["bytes"]
    assert "wordnet" not in found["questions"] and "numbers" in found["questions"]
    text = page.read_text()
    assert text == report.page(found)
    beside = (out / chain.NAME / "README.md").read_text()
    assert "| sums |" in beside and "Bad at: " in beside and "# The model in the box" in beside
    assert "| sums |" in text and ">>> What is 43 + 49?" in text
    assert all(len(line) <= 100 or line[0] in "| " for line in text.splitlines() if line)


@pytest.mark.thorough
def test_words_that_stand_in_training_too_are_counted(rehearsed, monkeypatch):
    _, out = rehearsed
    words = " ".join(f"word{n}" for n in range(15))
    said = {"train": {"wordnet": ["other " * 20], "letters": [words]}, "held_out": {}}
    said["held_out"] = {"wordnet": [words + " end"], "letters": ["other " * 13]}
    index = {"dtype": "uint16", "stores": {"wordnet": {}, "letters": {}}}
    for name in index["stores"]:
        index["stores"][name] = {side: (name, side) for side in said}
    monkeypatch.setattr(overlap, "read_index", lambda folder: index)
    monkeypatch.setattr(overlap, "open_store", lambda folder, dtype, notes: notes)
    monkeypatch.setattr(overlap, "_texts", lambda store, tokenizer: said[store[1]][store[0]])
    found = overlap.overlap(out / "pretrain", ["letters"])
    assert found["wordnet"] == {"runs": 4, "in_texts": 0, "in_training": 3}
    assert found["letters"] == {"runs": 1, "in_texts": 1, "in_training": 1}


@pytest.mark.thorough
def test_seeds_stand_beside_a_transformer_of_the_same_size(rehearsed):
    _, out = rehearsed
    place = out / seeds.FOLDER
    words = ["seeds", "--out", str(out), "--tokens", "2600", "--seeds", "2"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    found = json.loads((place / seeds.RESULTS).read_text())
    assert [(run["kind"], run["seed"]) for run in found["runs"]] == [
        (kind, seed) for seed in (1, 2) for kind in seeds.KINDS
    ]
    griffin, transformer, other = found["runs"][:3]
    assert griffin["parameters"] == pytest.approx(transformer["parameters"], rel=2e-3)
    assert griffin["bits_per_byte"] != other["bits_per_byte"]  # another seed
    assert griffin["course"][-1]["tokens"] == 2560
    kept = load(place / "transformer-1" / "model").model.config
    assert set(kept.block_types) == {"attention"} and kept.attention_window_size == 127
    assert "| all |" in done.output and (place / seeds.PICTURE).exists()
    again = CliRunner().invoke(main, words)
    assert "griffin-1 ..." not in again.output and "±" in again.output
    other = CliRunner().invoke(main, [*words[:4], "9999"])
    assert other.exit_code == 1 and "give another folder" in other.output
    page = out / "model.md"
    assert (
        not CliRunner().invoke(main, ["report", "--out", str(out), "--page", str(page)]).exit_code
    )
    assert "2,600 tokens by 2 seeds" in page.read_text() and (out / report.SEEDS).exists()


@pytest.mark.thorough
def test_trials_change_one_thing_each(rehearsed, archives, monkeypatch):
    folder, out = rehearsed
    chosen = ("as it is", "one wording", "without python")
    monkeypatch.setattr(trials, "TRIALS", {name: trials.TRIALS[name] for name in chosen})
    monkeypatch.setattr(trials, "build", partial(corpus.build, drawn=80))
    monkeypatch.setattr(python_texts, "library", _library)
    words = ["trials", "--corpus", folder, "--archives", archives, "--out", out]
    words = [*map(str, words), "--rehearsal", "--tokens", "2600", "--most", "2"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    place = out / trials.FOLDER
    runs = json.loads((place / "results.json").read_text())["runs"]
    assert [run["trial"] for run in runs] == list(chosen)
    recipes = {name: load_recipe(place / f"{name.replace(' ', '-')}.toml") for name in chosen}
    first, _ = recipes["without python"].train.stage
    assert "python" not in first.weights and "wordnet" in first.weights
    assert "python" in recipes["as it is"].train.stage[0].weights
    assert runs[2]["bits"]["letters"] > 0 and runs[0]["grades"]["sums"] >= 0
    asked = (place / "corpus-1" / "questions" / "sums.jsonl").read_text()
    assert "What is " in asked and "How much is" not in asked
    assert "How much is" in (folder / "questions" / "sums.jsonl").read_text()
    assert "| without python |" in done.output
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 0 and "as it is ..." not in again.output
    page = out / "model.md"
    assert (
        not CliRunner().invoke(main, ["report", "--out", str(out), "--page", str(page)]).exit_code
    )
    assert "Pre-trainings of 2,600 tokens with one thing changed" in page.read_text()


def test_the_transformer_of_the_true_recipe_has_the_same_size():
    recipe = tomllib.loads((ROOT / "mini/recipes/pretrain.toml").read_text("utf-8"))
    sizes = [weights(seeds.of_kind(recipe, kind, 1, 1000)["model"]) for kind in seeds.KINDS]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-3)


def weights(model):
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in model.items()}
    with torch.device("meta"):
        return sum(each.numel() for each in Griffin(GriffinConfig(**values)).parameters())


def test_a_report_names_what_is_not_done(tmp_path):
    done = CliRunner().invoke(main, ["report", "--out", str(tmp_path)])
    assert done.exit_code == 1 and "grades.json is missing: python -m mini train" in done.output
    done = CliRunner().invoke(main, ["train", "--corpus", str(tmp_path)])
    assert done.exit_code == 1 and "python -m mini sources" in done.output
