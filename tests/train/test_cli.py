from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from tokenizers import Tokenizer

from griffin.checkpoints import load_model
from griffin.cli.evaluate.command import command as evaluate
from griffin.cli.train import command
from griffin.train.checkpoint import latest_checkpoint
from griffin.train.loop import Trainer
from griffin.train.recipe import load_recipe
from griffin.train.report import Reporter
from tests.train.conftest import MODEL

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe_file(tmp_path: Path, corpus_folder: Path) -> Path:
    lines = ["[model]", *(f"{key} = {json.dumps(value)}" for key, value in MODEL.items())]
    lines += ["[data]", 'source = "files"', f'root = "{corpus_folder}"', "held_out = 0.2"]
    lines += [
        "[train]",
        "steps = 4",
        "rows = 2",
        "length = 24",
        "warmup_steps = 1",
        "log_every = 2",
    ]
    path = tmp_path / "toy.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.thorough
def test_train_leaves_a_model_that_loads(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = [str(recipe_file), "--out", str(out), "--threads", "1", "--json"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert printed == json.loads((out / "results.json").read_text())
    assert printed["training"]["steps"] == 4
    assert 0 <= printed["held_out"]["lines_in_training"] <= printed["held_out"]["lines"] > 0
    assert set(printed["bits_per_byte"]) >= {"whole documents", "rows of 24", "xz -9e, one stream"}
    assert [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()] == [
        2,
        4,
    ]

    model = load_model(out / "model", check=True)
    trained = Trainer(load_recipe(recipe_file), out, Reporter(quiet=True))
    for name, parameter in trained.model.named_parameters():
        assert torch.equal(model.get_parameter(name), parameter.to(torch.bfloat16))
    ids = Tokenizer.from_file(str(out / "model" / "tokenizer.json")).encode("def f(x):").ids
    assert ids[0] == 2 and max(ids) < model.config.vocab_size

    asked = ["--held-out", str(recipe_file), "--model", str(out / "model"), "--threads", "1"]
    again = CliRunner().invoke(evaluate, [*asked, "--json"])
    assert json.loads(again.stdout)["bits_per_byte"] == printed["bits_per_byte"]
    text = CliRunner().invoke(evaluate, asked)
    assert re.search(r"  \d\.\d{4}  whole documents\n", text.stdout)
    assert re.search(r"\d% of their lines over 40 characters stand in training", text.stdout)


def test_a_misspelt_key_is_suggested(recipe_file: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        command, [str(recipe_file), "--set", "train.lenght=8", "--out", str(tmp_path / "x")]
    )
    assert isinstance(result.exception, ValueError)
    assert "'lenght' (did you mean 'length'?)" in str(result.exception)
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_here_is_told_before_anything_is_done(
    recipe_file: Path, tmp_path: Path
) -> None:
    arguments = [str(recipe_file), "--device", "cuda", "--out", str(tmp_path / "x")]
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, ValueError) and "finds no GPU here" in str(result.exception)
    assert not (tmp_path / "x").exists()


@pytest.mark.thorough
def test_a_run_is_extended(recipe_file: Path, tmp_path: Path) -> None:
    arguments = [str(recipe_file), "--out", str(tmp_path / "x"), "--threads", "1", "--json"]
    arguments += ["--set", "train.schedule=constant"]
    assert CliRunner().invoke(command, arguments, catch_exceptions=False).exit_code == 0
    longer = [*arguments, "--set", "train.steps=6"]
    refused = CliRunner().invoke(command, longer)
    assert "--extend goes on with another budget" in str(refused.exception)
    result = CliRunner().invoke(command, [*longer, "--extend"], catch_exceptions=False)
    assert json.loads(result.stdout)["training"]["steps"] == 6


@pytest.mark.thorough
def test_ctrl_c_leaves_a_resumable_checkpoint(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = [
        str(recipe_file),
        "--out",
        str(out),
        "--set",
        "train.steps=100000",
        "--force",
        "--threads",
        "1",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "griffin.cli.train", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    log = out / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert f"to go on: griffin train {' '.join(arguments)}" in said
    assert "Traceback" not in said
    checkpoint = latest_checkpoint(out / "checkpoints")
    assert checkpoint is not None
    done = json.loads((checkpoint / "progress.json").read_text())["step"]
    plan = load_recipe(recipe_file, ["train.steps=100000"])
    assert Trainer(plan, out, Reporter(quiet=True)).progress.step == done > 0
