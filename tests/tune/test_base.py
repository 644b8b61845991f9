"""A run knows the base that it began on, and what it learns says which it was."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from griffin import checkpoints
from griffin.adapters import Adapter, BaseMark, LoraConfig, open_adapter, save_adapter
from griffin.checkpoints import load_model, save_model
from griffin.cli import main
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.tune.export import write_learned
from griffin.tune.methods import run_of

Build = Callable[..., Any]
LORA = {"method": "lora", "rank": 2}


def move(folder: Path) -> None:
    """Put weights in the place of a model's that differ in one norm."""
    model = load_model(folder)
    with torch.no_grad():
        model.model.final_norm.weight.mul_(1.5)
    save_model(model, folder)


@pytest.fixture
def own(base: Path, recipe: Callable[..., Recipe], tmp_path: Path) -> Recipe:
    """The toy recipe, on a copy of the base that may be changed."""
    shutil.copytree(base, tmp_path / "own")
    return dataclasses.replace(recipe(tune=LORA), base=str(tmp_path / "own"))


def begun(planned: Recipe, out: Path) -> Any:
    return run_of(planned)(planned, out, Reporter(quiet=True))


@pytest.mark.parametrize("kind", ["", "int4"])
def test_an_adapter_says_what_it_was_trained_on(
    run: Build, base: Path, tmp_path: Path, kind: str
) -> None:
    ours = run(tune=LORA | {"base": kind})
    ours.step()
    ours.save()
    mark = BaseMark.of(checkpoints.open(base), str(base))
    assert open_adapter(write_learned(ours)).mark == mark and mark.matrices
    done = CliRunner().invoke(main, ["export", str(ours.out), str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert open_adapter(tmp_path / "out").mark == mark


def test_a_run_does_not_go_on_with_another_base(own: Recipe, tmp_path: Path) -> None:
    with begun(own, tmp_path / "run") as ours:
        ours.step()
        ours.save()
    kept = (tmp_path / "run" / "base.json").read_text()
    checkpoints.quantize(own.base, tmp_path / "int8", "int8")
    shutil.rmtree(own.base)
    shutil.copytree(tmp_path / "int8", own.base)
    with begun(own, tmp_path / "run") as ours:  # a copy of the same
        assert ours.progress.step == 1 and ours.mark.matrices
    shutil.rmtree(tmp_path / "int8")
    move(Path(own.base))
    with pytest.raises(ValueError, match=r"began on other weights than those that .* names now"):
        begun(own, tmp_path / "run")
    assert (tmp_path / "run" / "base.json").read_text() == kept
    with begun(own, tmp_path / "new") as ours:
        assert ours.mark.kept != json.loads(kept)["kept"]


def test_a_reference_of_another_base_is_refused(
    own: Recipe, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"{n}?", "chosen": f" {n}.", "rejected": " No."} for n in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = Adapter.new("mine", LoraConfig(rank=2), own.model, torch.Generator().manual_seed(0))
    mark = BaseMark.of(own.open_base(), "the owl")
    folder = save_adapter(dataclasses.replace(made, mark=mark), tmp_path / "mine")
    tune = {"method": "dpo", "rank": 2, "reference": str(folder)}
    planned = dataclasses.replace(recipe(tune=tune, data=path), base=own.base)
    begun(planned, tmp_path / "run").close()
    move(Path(own.base))
    with pytest.raises(ValueError, match=r"adapter mine was trained on the owl; .*own is another"):
        begun(planned, tmp_path / "other")
