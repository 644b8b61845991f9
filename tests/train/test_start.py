"""A run that begins from a checkpoint, in every layout that is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import griffin
from griffin import checkpoints
from griffin.checkpoints import load_model, save_model
from griffin.model import Griffin
from griffin.quant import quantize_model
from griffin.text import Tokenizer
from griffin.train.data.bpe import save_bpe, train_bpe
from griffin.train.export import export
from griffin.train.loop import Trainer
from griffin.train.recipe import Recipe, load_recipe
from griffin.train.report import Reporter
from griffin.train.scale.ranks import Ranks
from griffin.train.start import fill_model
from tests.support.toy_checkpoints import DEEPMIND, edit_tensors
from tests.support.toy_models import make_model

CONFIG = DEEPMIND.replace(vocab_size=512)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy model with a tokenizer and a way to talk, in bfloat16."""
    folder = tmp_path_factory.mktemp("base") / "toy"
    save_model(make_model(CONFIG, dtype=torch.bfloat16), folder)
    save_bpe(train_bpe([Path(json.__file__).read_text()], 480), folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 6]}))
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    return folder


@pytest.fixture
def values(base: Path, corpus_folder: Path) -> dict[str, Any]:
    return {
        "from": str(base),
        "data": {"source": "files", "root": str(corpus_folder), "held_out": 0.2},
        "train": {"steps": 2, "rows": 2, "length": 24, "warmup_steps": 1, "log_every": 1},
    }


@pytest.mark.sweep
@pytest.mark.parametrize("layout", ["huggingface", "deepmind-torch", "deepmind-flax"])
def test_weights_and_tokenizer_come_from_a_checkpoint_of_any_layout(
    layout: Any, base: Path, values: dict[str, Any], tmp_path: Path
) -> None:
    checkpoints.convert(base, tmp_path / "there", layout)
    recipe = Recipe.from_dict(values | {"from": str(tmp_path / "there")})
    assert recipe.model == CONFIG
    with Trainer(recipe, tmp_path / "run", Reporter(quiet=True)) as ours:
        parameters = dict(ours.model.named_parameters())
        for name, weight in load_model(base).state_dict().items():
            assert parameters[name].dtype == torch.float32
            assert torch.equal(parameters[name], weight.float())
        assert ours.data.tokenizer.digest == Tokenizer.open(base).digest
        assert ours.data.train.document(0)[0] == ours.data.tokenizer.bos_id
        ours.run()
        assert not torch.equal(parameters["model.final_norm.weight"], weight.float())
        export(ours)
    model = tmp_path / "run" / "model"
    assert checkpoints.open(model).config == CONFIG
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (model / name).read_bytes() == (base / name).read_bytes(), name
    assert griffin.load(model).tokenizer.digest == Tokenizer.open(base).digest


def test_the_checkpoint_stays_as_it_is(values: dict[str, Any], tmp_path: Path) -> None:
    """Float32 weights are mapped where they are only read; these are trained."""
    folder = tmp_path / "float32"
    save_model(make_model(CONFIG), folder)
    before = (folder / "model.safetensors").read_bytes()
    shutil.copy(Path(values["from"]) / "tokenizer.json", folder)
    with Trainer(
        Recipe.from_dict(values | {"from": str(folder)}), tmp_path / "run", Reporter(quiet=True)
    ) as ours:
        ours.step()
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_resumed_run_needs_its_checkpoint_for_the_shape_alone(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.from_dict(values)
    with Trainer(recipe, tmp_path / "run", Reporter(quiet=True)) as ours:
        ours.step()
        ours.save()
        after = ours.step()["loss"]
    monkeypatch.setattr(checkpoints.Checkpoint, "read_apart", None)
    with Trainer(recipe, tmp_path / "run", Reporter(quiet=True)) as again:
        assert again.progress.step == 1 and again.step()["loss"] == after


def test_what_cannot_stand_beside_it(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"brings the model's shape, so \[model\] cannot stand"):
        Recipe.from_dict(values | {"model": {"preset": "nano"}})
    with pytest.raises(ValueError, match=r"own tokenizer, so tokenizer\.path cannot stand"):
        Recipe.from_dict(values | {"tokenizer": {"path": "tokenizer.json"}})
    with pytest.raises(ValueError, match="from must name a checkpoint"):
        Recipe.from_dict(values | {"from": 3})
    with pytest.raises(ValueError, match=r"lacks the section \[model\] \(or from = "):
        Recipe.from_dict({"train": values["train"]})


def test_a_recipe_file_names_it(base: Path, tmp_path: Path) -> None:
    """By a path from the recipe's own folder; --set from=... names another."""
    shutil.copytree(base, tmp_path / "recipes" / "mine")
    file = tmp_path / "recipes" / "go-on.toml"
    file.write_text('from = "mine"\n[train]\nsteps = 2\n')
    recipe = load_recipe(file)
    assert recipe.model == CONFIG and recipe.open_base().folder == file.parent / "mine"
    assert Recipe.from_dict(recipe.to_dict(), file.parent) == recipe
    other = load_recipe(file, ["from=nano"])
    assert other.model != CONFIG and other.digest() != recipe.digest()
    with pytest.raises(ValueError, match="no-such-model"):
        load_recipe(file, ["from=no-such-model/really/not"])


def start(recipe: Recipe) -> None:
    with torch.device("meta"):
        model = Griffin(recipe.model)
    fill_model(model, recipe, torch.device("cpu"))


def test_what_cannot_be_started_from(
    base: Path, values: dict[str, Any], tmp_path: Path, recipe: Callable[..., Recipe]
) -> None:
    packed = load_model(base)
    quantize_model(packed, "int8")
    save_model(packed, tmp_path / "int8")
    with pytest.raises(ValueError, match="quantized to int8, which cannot be trained"):
        start(Recipe.from_dict(values | {"from": str(tmp_path / "int8")}))
    with pytest.raises(ValueError, match="quantized to int8, which cannot be trained"):
        Trainer.check(Recipe.from_dict(values | {"from": str(tmp_path / "int8")}), Ranks())
    shutil.copytree(base, tmp_path / "nan")
    edit_tensors(tmp_path / "nan", model__final_norm__weight=torch.full((48,), torch.nan))
    with pytest.raises(ValueError, match="final_norm"):
        start(Recipe.from_dict(values | {"from": str(tmp_path / "nan")}))
    (tmp_path / "nan" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer\.json"):
        Trainer(
            Recipe.from_dict(values | {"from": str(tmp_path / "nan")}),
            tmp_path / "run",
            Reporter(quiet=True),
        )
