"""`python -m benchmarks unit`: the recurrent unit and the scan beside what bounds them."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.unit import Beside


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
