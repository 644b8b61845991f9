"""The whole way from a corpus to the model in the box, rehearsed with a model of nothing."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from griffin.capacity import model_bytes
from griffin.loading import load
from griffin.model import Griffin, GriffinConfig
from mini import chain, corpus, overlap, python_texts, report, seeds
from mini.__main__ import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rehearsed(archives, tmp_path_factory):
    """Return the folders of a small corpus and of what was made of it."""
    root = tmp_path_factory.mktemp("rehearsal")
    functions = "".join(
        f'def read_{n}(file):\n    """Read the document number {n} from a file."""\n\n'
        for n in range(12)
    )
    with pytest.MonkeyPatch.context() as patched:
        library = [(f"module{n}", f"# {n}\n{functions}") for n in range(8)]
        patched.setattr(python_texts, "library", lambda broken: iter(library))
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
def test_seeds_stand_beside_a_transformer_of_the_same_size(rehearsed, tmp_path):
    _, out = rehearsed
    words = ["seeds", "--run", str(out), "--out", str(tmp_path), "--tokens", "2600", "--seeds", "2"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / seeds.RESULTS).read_text())
    assert [(run["kind"], run["seed"]) for run in found["runs"]] == [
        (kind, seed) for seed in (1, 2) for kind in seeds.KINDS
    ]
    griffin, transformer, other = found["runs"][:3]
    assert griffin["parameters"] == pytest.approx(transformer["parameters"], rel=2e-3)
    assert griffin["bits_per_byte"] != other["bits_per_byte"]  # another seed
    assert griffin["course"][-1]["tokens"] == 2560
    kept = load(tmp_path / "transformer-1" / "model").model.config
    assert set(kept.block_types) == {"attention"} and kept.attention_window_size == 127
    assert "| all |" in done.output and (tmp_path / seeds.PICTURE).exists()
    again = CliRunner().invoke(main, words)
    assert "griffin-1 ..." not in again.output and "±" in again.output
    other = CliRunner().invoke(main, [*words[:6], "9999"])
    assert other.exit_code == 1 and "give another folder" in other.output


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
