"""griffin convert, as a person or a program calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import griffin.checkpoints as checkpoints
from griffin.cli import main
from griffin.model import PRESETS
from tests.support.toy_checkpoints import DEEPMIND, UNTOLD, same
from tests.support.toy_models import make_model


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    checkpoints.save_model(make_model(DEEPMIND), tmp_path / "hf")
    return tmp_path / "hf"


def test_there_and_back(saved: Path, tmp_path: Path) -> None:
    result = run(saved, tmp_path / "x.pt", "--to", "deepmind-torch", "--json")
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert made["layout"] == "deepmind-torch" and made["config"]["width"] == DEEPMIND.width
    refused = run(tmp_path / "x.pt", tmp_path / "back")
    assert refused.exit_code == 2 and "cannot tell attention_window_size" in refused.stderr
    assert not (tmp_path / "back").exists()
    (tmp_path / "told.json").write_text(json.dumps(UNTOLD))
    result = run(tmp_path / "x.pt", tmp_path / "back", "--config", tmp_path / "told.json")
    assert result.exit_code == 0 and "huggingface" in result.stdout
    assert same(checkpoints.load_model(tmp_path / "back"), make_model(DEEPMIND))
    (tmp_path / "back/config.json").rename(tmp_path / "whole.json")
    result = run(tmp_path / "x.pt", tmp_path / "again", "--config", tmp_path / "whole.json")
    assert result.exit_code == 0, result.stderr


def test_random(tmp_path: Path) -> None:
    result = run("--random", "nano", tmp_path / "r", "--dtype", "float32")
    assert result.exit_code == 0, result.output
    assert checkpoints.load_model(tmp_path / "r").config == PRESETS["nano"]
    assert run("--random", "nanno", tmp_path / "s").exit_code == 2


def test_misuse(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"atention_window_size": 3}')
    for arguments, message in (
        ((saved,), "expected SRC and DST"),
        (("--random", "nano", saved, tmp_path / "x"), "expected DST alone"),
        ((saved, tmp_path / "x", "--to", "gguf"), "gguf"),
        ((saved, saved), "exists already"),
        ((tmp_path / "none", tmp_path / "x"), "does not exist"),
        ((saved, tmp_path / "x", "--dtype", "int4"), "dtype must be one of"),
        (
            (saved, tmp_path / "x", "--config", tmp_path / "bad.json"),
            "did you mean 'attention_window_size'",
        ),
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and message in result.stderr, result.stderr
        assert not (tmp_path / "x").exists()
