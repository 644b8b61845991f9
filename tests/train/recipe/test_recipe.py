from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from griffin.model import Griffin
from griffin.train.bundled import find_recipe, recipes
from griffin.train.export import measure
from griffin.train.recipe import Recipe, load_recipe
from griffin.train.recipe.source import FEWER_KINDS
from griffin.train.report import Reporter

MINIMAL = {"model": {"preset": "nano"}, "train": {"steps": 10}}


def _tables(*tables: dict[str, Any], **data: Any) -> dict[str, Any]:
    return MINIMAL | {"data": {"source": list(tables)} | data}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"preset": "nano"}, "trian": {}}, r"'trian' \(did you mean 'train'\?\)"),
        (MINIMAL | {"train": {"steps": 1, "learnig_rate": 1}}, r"did you mean 'learning_rate'"),
        (MINIMAL | {"model": {"preset": "nano", "widht": 8}}, r"did you mean 'width'"),
        (MINIMAL | {"model": {"preset": "nanoo"}}, r"did you mean 'nano'"),
        (MINIMAL | {"model": {"preset": 3}}, r"preset must be a name, not 3"),
        (MINIMAL | {"data": {"heldout": 0.1}}, r"did you mean 'held_out'"),
        (MINIMAL | {"tokenizer": {"paht": "x"}}, r"did you mean 'path'"),
        ({"train": {"steps": 1}}, r"lacks the section \[model\]"),
        (MINIMAL | {"data": 3}, r"data must be a section"),
        (MINIMAL | {"train": {}}, r"exactly one budget"),
        (MINIMAL | {"train": {"steps": 1, "tokens": 1}}, r"exactly one budget"),
        (MINIMAL | {"train": {"steps": "ten"}}, r"train.steps must be a whole number, not 'ten'"),
        (MINIMAL | {"train": {"steps": True}}, r"train.steps must be a whole number"),
        (
            MINIMAL | {"train": {"steps": 1, "dtype": "float16"}},
            r"'float32', 'bfloat16', not 'float16'",
        ),
        (MINIMAL | {"train": {"steps": 1, "beta2": 1.0}}, r"train.beta2 must be at least 0"),
        (MINIMAL | {"train": {"steps": 1, "rows": 0}}, r"train.rows must be at least 1"),
        *(
            (
                MINIMAL | {"train": {"steps": 1, name: value}},
                rf"train.{name} must be a finite number",
            )
            for name in ("clip", "learning_rate", "weight_decay", "epsilon", "checkpoint_minutes")
            for value in (float("nan"), float("inf"), -float("inf"))
        ),
        (MINIMAL | {"train": {"steps": 1, "epsilon": 1e-50}}, r"train.epsilon must be at least"),
        (MINIMAL | {"train": {"steps": 1, "lr": 2}}, r"here it is train.learning_rate"),
        (MINIMAL | {"train": {"steps": 1, "max_grad_norm": 2}}, r"here it is train.clip"),
        (MINIMAL | {"train": {"steps": 1, "remat": 2}}, r"here it is train.checkpoint"),
        (MINIMAL | {"data": {"held_out": 1.0}}, r"held_out must lie between"),
        (MINIMAL | {"data": {"include": "*.py"}}, r"data.include must be a list of strings"),
        (MINIMAL | {"data": {"packing": "bfd"}}, r"'cut', 'best-fit', not 'bfd'"),
        (_tables({"path": "x"}), r"name"),
        (_tables({"name": "a/b", "path": "x"}), r"letters, digits"),
        (_tables({"name": "a"}), r"'a' needs exactly one of path, hub and stdlib; it has none"),
        (_tables({"name": "a", "path": "x", "hub": "y"}), r"it has path and hub"),
        (_tables({"name": "a", "dataset": "x"}), r"here it is data.source.hub"),
        (_tables({"name": "a", "hub": "x", "columns": ["txt"]}), r"columns names 'txt'"),
        (_tables({"name": "a", "path": "x", "format": "csv"}), r"'parquet', not 'csv'"),
        (_tables({"name": "a", "path": "x"}, {"name": "a", "path": "y"}), r"name of its own"),
        (_tables({"name": "a", "path": "x"}, root="y"), r"data.root has no meaning .* give path"),
        (_tables(), r"name of its own"),
        (MINIMAL | {"data": {"source": "web"}}, r"'stdlib', 'files', not 'web'"),
    ],
)
def test_impossible_recipes_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict(values)


def test_changes_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('[model]\npreset = "nano"\n[train]\ntokens = 1000\n')
    changed = load_recipe(
        file, ["train.steps=7", "train.dtype=bfloat16", "data.include=['*.txt']", "model.width=96"]
    )
    assert (changed.train.steps, changed.train.tokens, changed.train.dtype) == (7, 0, "bfloat16")
    assert changed.data.include == ("*.txt",)
    assert changed.model.width == 96
    for change in ("train.steps", "steps=3", ".x=1", "train.stpes=3"):
        with pytest.raises(ValueError, match=r"section\.key=value|did you mean 'steps'"):
            load_recipe(file, [change])


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no recipe at"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "torn.toml").write_text("[model\n")
    with pytest.raises(ValueError, match=r"torn\.toml is not a readable TOML"):
        load_recipe(tmp_path / "torn.toml")


def test_round_trip_and_digest(recipe: Callable[..., Recipe]) -> None:
    ours = recipe()
    again = Recipe.from_dict(ours.to_dict())
    assert again == ours
    assert (
        again.digest()
        == ours.digest()
        == recipe(log_every=3, keep=1, checkpoint_minutes=1, checkpoint="blocks").digest()
    )
    assert recipe(learning_rate=1e-4).digest() != ours.digest() != recipe(rows=4).digest()


def test_tables_of_sources(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    tables = '[[data.source]]\nname = "a"\npath = "x"\n[[data.source]]\nname = "b"\nhub = "y/z"\n'
    file.write_text('[model]\npreset = "nano"\n' + tables + "[train]\nsteps = 1\n")
    plan = load_recipe(file, ["data.held_out=0.5"])
    assert [source.name for source in plan.data.sources] == ["a", "b"]
    assert Recipe.from_dict(plan.to_dict(), plan.folder) == plan
    short = Recipe.from_dict(MINIMAL | {"data": {"source": "files", "root": "x"}}).data.sources
    assert [(s.name, s.path, s.include) for s in short] == [("files", "x", ("**/*.py",))]
    assert Recipe.from_dict(MINIMAL).data.sources[0].stdlib


def test_budget_in_tokens() -> None:
    plan = Recipe.from_dict(
        MINIMAL | {"train": {"tokens": 1000, "rows": 2, "length": 10, "accumulation": 5}}
    )
    assert plan.train.total_steps == 10
    assert Recipe.from_dict(MINIMAL | {"train": {"tokens": 1}}).train.total_steps == 1


def test_bundled_recipes_compare_equals() -> None:
    """The transformer has nano's size, and everything but its model is nano's."""
    assert list(recipes()) == ["nano", "nano-transformer"]
    ours, theirs = (load_recipe(find_recipe(name)) for name in recipes())
    sizes = []
    for plan in (ours, theirs):
        with torch.device("meta"):
            sizes.append(sum(p.numel() for p in Griffin(plan.model).parameters()))
    assert abs(sizes[1] / sizes[0] - 1) < 0.001
    assert set(theirs.model.block_types) == {"attention"}
    assert theirs.model.attention_window_size + 1 >= theirs.train.length  # a token sees itself too
    texts = [tomllib.loads(find_recipe(name).read_text()) for name in recipes()]
    assert {k: v for k, v in texts[0].items() if k != "model"} == {
        k: v for k, v in texts[1].items() if k != "model"
    }


def test_a_file_comes_before_a_bundled_recipe(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("nano").name == "nano.toml"
    (tmp_path / "nano").write_text("")
    assert find_recipe("nano") == Path("nano")
    assert all(what for what in recipes().values())
    for wrong in ("nanoo", "recipes/nano.toml", "nano.tml"):
        with pytest.raises(ValueError, match=r"nano, nano-transformer; did you mean nano\?"):
            find_recipe(wrong)


def test_what_is_measured_must_be_there(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(ValueError, match="nope does not exist"):
        measure(recipe(), tmp_path / "nope", Reporter(quiet=True))


def test_a_run_of_fewer_kinds_of_files_goes_on() -> None:
    table = {"name": "a", "path": "x"}
    then = _tables(table | {"include": list(FEWER_KINDS)})
    assert Recipe.from_dict(then).digest() == Recipe.from_dict(_tables(table)).digest()
