"""`griffin bench`, as it is typed."""

from __future__ import annotations

import json
import sys

import pytest
from click.testing import CliRunner

from griffin.bench.measurement import Report
from griffin.cli import main

QUICK = ("--threads", 1, "--rounds", 2, "--tokens", 3, "--buffer", 4, "--probe", 0.01)
KEYS = {
    *("what", "model", "format", "threads", "batch", "context", "ratio"),
    *("tokens_per_second", "bytes_per_token", "limit_tokens_per_second"),
}


def run(*arguments: object):
    return CliRunner().invoke(main, ["bench", *map(str, arguments)])


@pytest.mark.thorough
def test_json_report_and_plot_of_one_run(folder, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sys, "argv", ["griffin", "bench", "decode"])
    out, picture = tmp_path / "report.json", tmp_path / "picture.png"
    files = ("--out", out, "--plot", picture)
    result = run(
        "decode", "--model", folder, "--context", 20, "--context", 40, *QUICK, "--json", *files
    )
    assert result.exit_code == 0, result.output
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    assert [o["context"] for o in objects] == [20, 40] and all(set(o) >= KEYS for o in objects)
    for o in objects:
        assert o["ratio"] == pytest.approx(o["tokens_per_second"] / o["limit_tokens_per_second"])
        assert o["bytes_per_token"] > 590_000 and o["program"] == "griffin" and o["threads"] == 1
    report = Report.open(out)
    assert [m.to_dict() for m in report.measurements] == objects
    assert report.command == "griffin bench decode" and report.machine["cores"] >= 1
    assert picture.read_bytes().startswith(b"\x89PNG")
    shown = run("show", out)
    assert shown.exit_code == 0 and "decode" in shown.stdout and "read, 1 threads" in shown.stdout
    shown = run("show", out, "--plot", tmp_path / "again.svg")
    assert shown.exit_code == 0 and "<svg" in (tmp_path / "again.svg").read_text()


def test_batch_and_prefill_as_tables(folder, here):
    result = run("batch", "--model", folder, "--batch", 2, "--context", 8, *QUICK)
    assert result.exit_code == 0, result.output
    row = next(line for line in result.stdout.splitlines() if line.startswith("decode"))
    assert row.split()[1:6] == ["griffin", "float32", "1", "2", "8"]
    assert "float32 product, 512 rows" in result.stdout
    result = run("prefill", "--model", folder, "--length", 50, *QUICK)
    assert result.exit_code == 0, result.output
    assert "prefill" in result.stdout and "bfloat16 product, 50 rows" in result.stdout


def test_kernels(folder, here):
    result = run("kernels", "--model", folder, "--length", 40, *QUICK, "--json")
    assert result.exit_code == 0, result.output
    names = [json.loads(line)["what"] for line in result.stdout.splitlines()]
    assert "head 512x64, 1 row" in names and any(
        n.startswith("linear_scan backward, 40") for n in names
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("decode", "--model", "/nowhere"), "/nowhere"),
        (("decode", "--against", "transformers"), "No such option"),
        (("decode", "--format", "int3"), "int3"),
        (("decode", "--out", "/nowhere/x.json"), "there is no folder /nowhere"),
        (("show", __file__), "is not a report"),
    ],
)
def test_misuse(here, arguments, said):
    result = run(*arguments)
    assert result.exit_code == 2 and said in result.stderr and "Traceback" not in result.stderr
