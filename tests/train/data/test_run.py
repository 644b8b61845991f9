"""From rows of several sources to a model, through the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from griffin.cli.evaluate.command import command as evaluate
from griffin.cli.train import command
from tests.train.conftest import MODEL
from tests.train.data.test_prepare import ROOT, _rows


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    rows = _rows(600)
    for name, part in (("talk", [r for r in rows if "messages" in r]), ("text", rows)):
        lines = [json.dumps(row) + "\n" for row in part if name == "talk" or "text" in row]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    lines = ["[model]", *(f"{key} = {json.dumps(value)}" for key, value in MODEL.items())]
    for name in ("talk", "text"):
        lines += ["[[data.source]]", f'name = "{name}"', f'path = "{name}.jsonl"']
    lines += ["[train]", "steps = 3", "rows = 2", "length = 32", "warmup_steps = 1"]
    file = tmp_path / "toy.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.mark.thorough
def test_answers_are_trained_on_and_measured(recipe_file: Path, tmp_path: Path) -> None:
    arguments = [str(recipe_file), "--out", str(tmp_path / "run"), "--threads", "1", "--json"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    results = json.loads(result.stdout)
    index = json.loads((tmp_path / "run" / "data" / "index.json").read_text())
    assert (
        not index["stores"]["talk"]["train"]["whole"] and index["stores"]["text"]["train"]["whole"]
    )
    held_out = results["held_out"]
    assert held_out["documents"] == sum(
        s["held_out"]["documents"] for s in index["stores"].values()
    )
    # The model measured by itself, on what the recipe's sources say, has the same figures.
    model = str(tmp_path / "run" / "model")
    asked = ["--held-out", str(recipe_file), "--model", model, "--threads", "1", "--json"]
    again = CliRunner().invoke(evaluate, asked)
    measured = json.loads(again.stdout)
    assert measured["held_out"] == held_out
    assert measured["bits_per_byte"] == pytest.approx(results["bits_per_byte"])


@pytest.mark.thorough
def test_sigterm_during_preparation(recipe_file: Path, tmp_path: Path) -> None:
    """It leaves what is done, and says with which line it goes on."""
    rows = json.dumps({"text": "owl " * 400}) + "\n"
    (tmp_path / "text.jsonl").write_text(rows * 20_000)
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "griffin.cli.train", str(recipe_file), "--out", str(out),
         "--threads", "1"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    journal = out / "data" / "survey" / "journal.jsonl"
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 200):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert f"to go on: griffin train {recipe_file} --out {out}" in said and "Traceback" not in said
    assert json.loads(journal.read_text().splitlines()[-1])["blocks"] > 0
