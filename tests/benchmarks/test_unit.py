"""`python -m benchmarks unit`: the recurrent unit and the scan beside what bounds them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.unit import Beside
from griffin.bench.measurement import Report


@pytest.mark.parametrize("more", [(), ("--dtype", "bfloat16"), ("--scan",)])
def test_a_line_that_says_both_shares(monkeypatch, more):
    # Of the true size a minute where torch has no instructions for bfloat16.
    monkeypatch.setattr("benchmarks.unit._PRODUCT", (32, 64, 96))
    sizes = ("--rows", "2", "--length", "40", "--width", "64", "--blocks", "4", "--threads", "1")
    done = CliRunner().invoke(main, ["unit", *sizes, "--rounds", "1", *more])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("2 x 40 x 64, ")
    numbers = [float(n) for n in re.findall(r"(?:ms, |forward |backward )([\d.]+)", done.stdout)]
    assert len(numbers) == 4 and all(n > 0 for n in numbers[1::2])
    found = Beside(3.0, 2.0, 8.0, 4.0)
    for name in ("unit", "scan"):
        monkeypatch.setattr(f"benchmarks.unit.{name}", lambda *_: found)
    said = CliRunner().invoke(main, ["unit", *sizes, *more]).stdout
    assert "forward 3000.0 ms, 1.50 of" in said and "backward 8000.0 ms, 2.00 of" in said


@pytest.mark.parametrize("more", [(), ("--scan",)])
def test_a_report_holds_what_the_line_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: tuple[str, ...]
) -> None:
    found = Beside(3.0, 2.0, 8.0, 4.0, product_rate=5e9, copy_rate=7e9)
    monkeypatch.setattr("benchmarks.unit.unit", lambda *_: found)
    monkeypatch.setattr("benchmarks.unit.scan", lambda *_: found._replace(product_rate=None))
    out, sizes = tmp_path / "unit.json", ("--rows", "2", "--length", "40", "--width", "64")
    done = CliRunner().invoke(main, ["unit", *sizes, *more, "--json", "--out", str(out)])
    assert done.exit_code == 0, done.output
    report = Report.open(out)
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert printed == [each.to_dict() for each in report.measurements]
    forward, backward = report.measurements
    assert (forward.seconds, forward.tokens_per_second, forward.batch) == (3.0, 80 / 3, 2)
    assert (forward.ratio, backward.ratio) == (2 / 3, 0.5)
    assert forward.what == f"{'scan' if more else 'unit'} forward, beside" + (
        " a copy" if more else " the limit"
    )
    assert report.rates["read and written by a copy"] == 7e9 and len(report.rates) == 2 - len(more)
    assert {"processor", "kernels", "versions"} <= report.machine.keys() and report.command
