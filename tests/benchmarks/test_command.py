"""`python -m benchmarks`, as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.rivals import RIVALS, ROOT
from griffin.bench.measurement import Report
from tests.bench.test_command import QUICK


def run(*arguments: object):
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.mark.thorough
def test_ours_and_a_rival_in_one_run(folder, here, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "__main__.py"), "decode", "--x"])
    given = ("--model", folder, "--context", 20, "--against", "transformers", *QUICK)
    result = run("decode", *given, "--json", "--out", tmp_path / "report.json")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["program"], row["what"], row["format"]) for row in rows] == [
        ("griffin", "decode", "float32"),
        ("transformers", "decode", "float32"),
    ]
    assert all(row["context"] == 20 and len(row["samples"]) == 2 for row in rows)
    report = Report.open(tmp_path / "report.json")
    assert [m.to_dict() for m in report.measurements] == rows
    assert report.command == "python -m benchmarks decode --x"
    assert set(report.machine["versions"]) == {"python", "torch", "numpy", "transformers"}


def test_ours_alone_as_griffin_bench_has_it(folder, here):
    result = run("prefill", "--model", folder, "--length", 50, *QUICK)
    assert result.exit_code == 0, result.output
    assert "prefill" in result.stdout and "bfloat16 product, 50 rows" in result.stdout


def test_a_file_for_llama_cpp_is_written(tmp_path):
    pytest.importorskip("gguf")
    path = tmp_path / "toy.gguf"
    result = run("gguf", path, "--shape", "toy", "--format", "int8")
    assert result.exit_code == 0 and result.stdout == f"{path}: 0.000 GB\n"
    assert path.read_bytes().startswith(b"GGUF")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("decode", "--model", "/nowhere"), "/nowhere"),
        (("decode", "--against", "llama.cpp"), "--gguf FOLDER"),
        (("decode", "--against", "jax"), "'jax' is not one of 'transformers'"),
        (("kernels", "--against", "transformers"), "No such command 'kernels'"),
        (("gguf", "x.gguf", "--shape", "gemma-3"), "there are gemma-2b, toy"),
    ],
)
def test_misuse(here, arguments, said):
    result = run(*arguments)
    assert result.exit_code == 2 and said in result.stderr and "Traceback" not in result.stderr


def test_it_runs_as_a_module_of_the_checkout():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "decode", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: python -m benchmarks decode" in done.stdout
    assert all(name in done.stdout for name in ("--context", "--against", "--patience", *RIVALS))
