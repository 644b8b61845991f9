"""The row of rivals on a GPU, tried on the CPU at toy shapes."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main


@pytest.mark.parametrize("code", [0, 3])
def test_the_script_keeps_both_tables_and_the_exit_code(tmp_path, code):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "asked $2"\ntest "$2" = benchmarks || exit {code}\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["sh", "benchmarks/gpu.sh", str(tmp_path / "out"), "--dry-run"],
        env=os.environ | {"PYTHON": str(python)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout == "asked griffin.cli\nasked benchmarks\n"
    assert (tmp_path / "out" / "gpu.txt").read_text() == "asked griffin.cli\n"
    assert (tmp_path / "out" / "rivals.txt").read_text() == "asked benchmarks\n"


@pytest.mark.slow
def test_a_dry_run_steps_with_both_rivals(tmp_path):
    out = tmp_path / "rivals.json"
    result = CliRunner().invoke(main, ["gpu", "--dry-run", "--out", str(out)])
    assert result.exit_code == 0, result.output
    row, *kernels = json.loads(out.read_text())["rows"]
    assert [each["outcome"] for each in kernels] == ["waits"] * 3
    beside = [figure["what"] for figure in row["figures"] if figure["unit"] == "x"]
    assert sum("RecurrentGemma" in what for what in beside) == 1
    assert sum("transformers' Gemma" in what for what in beside) == 2
    assert all(figure["value"] > 0 for figure in row["figures"])
