"""The row of rivals on a GPU, tried on the CPU at toy shapes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

import benchmarks.gpu as gpu
from griffin.bench.gpu.scene import Scene


def script(folder: Path, code: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script with a python that says what it is asked; ours ends with a code."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\necho "$@"\ntest "$2" = benchmarks || exit {code}\n')
    python.chmod(0o755)
    return subprocess.run(
        ["sh", "benchmarks/gpu.sh", *arguments],
        env=os.environ | {"PYTHON": str(python)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("code", [0, 3])
def test_the_script_keeps_all_tables_and_the_exit_code(tmp_path, code):
    out = tmp_path / "out"
    done = script(tmp_path, code, str(out), "--dry-run")
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.splitlines() == [
        f"-m griffin.cli bench gpu --dry-run --out {out}/gpu.json",
        f"-m griffin.cli bench gpu --rest {out}/gpu.json --budget 240 --dry-run"
        f" --out {out}/rest.json",
        f"-m benchmarks gpu --budget 210 --dry-run --out {out}/rivals.json",
    ]
    tables = [(out / f"{part}.txt").read_text() for part in ("gpu", "rest", "rivals")]
    assert "".join(tables) == done.stdout


def test_some_parts_of_the_script(tmp_path):
    out = tmp_path / "out"
    done = script(tmp_path, 0, str(out), "rest", "rivals")
    assert done.returncode == 0 and not (out / "gpu.txt").exists()
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["griffin.cli", "benchmarks"]
    done = script(tmp_path, 0, str(out), "rivlas")
    assert (done.returncode, done.stdout) == (2, "") and "gpu, rest, rivals" in done.stderr


def test_nothing_imports_torch_before_a_dry_run_asks_for_the_interpreter():
    """Triton asks once, as it is imported."""
    asked = "import sys, benchmarks.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked]).returncode == 0


@pytest.mark.thorough
@pytest.mark.parametrize("make", [gpu._recurrent_gemma, gpu._gemma])
def test_both_rivals_step_at_toy_shapes(make):
    scene = Scene(True)
    step = gpu._stepping(scene, make(transformers, scene), 2, scene.sizes.contexts[0])
    step()
    step()


@pytest.mark.slow
def test_a_dry_run_steps_with_both_rivals(tmp_path):
    out = tmp_path / "rivals.json"
    outside = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks", "gpu", "--dry-run", "--out", str(out)]
    done = subprocess.run(command, env=outside, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    row, *kernels = json.loads(out.read_text())["rows"]
    assert [each["outcome"] for each in kernels] == ["waits"] * 3
    beside = [figure["what"] for figure in row["figures"] if figure["unit"] == "x"]
    assert sum("RecurrentGemma" in what for what in beside) == 1
    assert sum("transformers' Gemma" in what for what in beside) == 2
    assert all(figure["value"] > 0 for figure in row["figures"])
