"""The best checkpoint by held-out loss, and any checkpoint as a model: `griffin export`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import griffin
from griffin.checkpoints import load_model
from griffin.cli import main
from griffin.train.checkpoint import read_progress
from griffin.train.loop import Trainer
from griffin.train.run import Validation

Build = Callable[..., Trainer]
_BITS = (3.0, 1.5, 2.0, 1.5, 2.5)  # of the validations after steps 1 to 5: the second is the best


@pytest.fixture
def trained(trainer: Build, monkeypatch: pytest.MonkeyPatch) -> tuple[Trainer, list[torch.Tensor]]:
    """A run of five steps, and its weights after the second."""
    ours = trainer(steps=5, eval_every=1, keep=2)
    kept = list[torch.Tensor]()
    found: Iterator[float] = iter(_BITS)

    def validate() -> Validation:
        if ours.progress.step == 2:
            kept.extend(p.detach().clone() for p in ours.model.parameters())
        ours.save()
        return Validation(next(found), {})

    monkeypatch.setattr(ours, "validate", validate)
    ours.run()
    return ours, kept


def test_the_best_stays_whatever_is_pruned(
    trained: tuple[Trainer, list[torch.Tensor]], trainer: Build
) -> None:
    ours, kept = trained
    names = sorted(path.name for path in ours.checkpoints.iterdir())
    assert names == ["best", "step-0000004", "step-0000005"]
    found = read_progress(ours.checkpoints / "best")
    assert (found.step, found.best) == (2, 1.5)
    again = trainer(steps=5, eval_every=1, keep=2)
    assert again.progress.step == 5 and again.progress.best == 1.5
    assert not all(map(torch.equal, kept, again.model.parameters()))


def test_none_is_kept_where_none_is_wanted(trainer: Build) -> None:
    ours = trainer(steps=2, keep_best=False)
    ours.run()
    assert [path.name for path in ours.checkpoints.iterdir()] == ["step-0000002"]


def _export(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def test_export(trained: tuple[Trainer, list[torch.Tensor]], tmp_path: Path) -> None:
    """While the run has its folder: the newest, the best, one of a step."""
    ours, kept = trained
    result = _export(ours.out, tmp_path / "best", "--best", "--dtype", "float32", "--json")
    facts: dict[str, Any] = json.loads(result.stdout)
    assert (facts["step"], facts["best_held_out_bits_per_byte"]) == (2, 1.5)
    assert all(map(torch.equal, kept, load_model(tmp_path / "best").parameters()))
    assert griffin.load(tmp_path / "best").tokenizer.digest == ours.data.tokenizer.digest

    said = _export(ours.out, tmp_path / "newest")
    assert "parameters in bfloat16, after 5 steps (240 tokens), from " in said.stdout
    newest = load_model(tmp_path / "newest").parameters()
    for mine, theirs in zip(ours.model.parameters(), newest, strict=True):
        assert torch.equal(mine.to(torch.bfloat16), theirs)
    assert json.loads(_export(ours.out, tmp_path / "4", "--step", 4, "--json").stdout)["step"] == 4
    assert sorted(path.name for path in (tmp_path / "4").iterdir()) == [
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("RUN", "new", "--step", 3), "has no checkpoint of step 3; there is steps 4, 5 and the"),
        (("RUN", "RUN"), "exists already; name a new folder"),
        (("RUN", "new", "--step", 3, "--best"), "give --best or --step, not both"),
        (("RUN", "new", "--dtype", "int3"), "dtype must be one of"),
        (("elsewhere", "new"), "is no run's folder: recipe.json cannot be read (No such file"),
    ],
)
def test_misuse(
    arguments: tuple[object, ...],
    message: str,
    trained: tuple[Trainer, list[torch.Tensor]],
    tmp_path: Path,
) -> None:
    places = {"RUN": trained[0].out, "new": tmp_path / "new", "elsewhere": tmp_path / "none"}
    result = _export(*(places.get(str(a), a) for a in arguments))
    assert result.exit_code == 2 and message in result.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("dtype", "said"), [("int3", "must be one of"), ("float16", "leave it")])
def test_a_type_that_an_adapter_cannot_have_is_refused(
    tmp_path: Path, dtype: str, said: str
) -> None:
    recipe = {"from": "nano", "tune": {"method": "lora"}}
    (tmp_path / "recipe.json").write_text(json.dumps({"recipe": recipe}))
    done = _export(tmp_path, tmp_path / "out", "--dtype", dtype)
    assert done.exit_code == 2 and said in done.output, done.output
