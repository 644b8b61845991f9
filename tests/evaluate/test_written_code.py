"""Programs that a model wrote: those that pass, and those that fail, hang, grow, leave or call."""

from __future__ import annotations

import sys

import pytest

from griffin.evaluate.written_code import CodeEval, passes

BAD = {
    "fails": "assert 1 == 2",
    "is no program": "def f(:",
    "ends early": "import os; os._exit(0)",
    "says it passed": "print('passed'); raise SystemExit(0)",
    "computes without end": "while True: pass",
    "wants memory": "x = bytearray(1 << 31)",
    "writes much": "open('x', 'wb').write(bytes(1 << 21)); assert False",
}


@pytest.mark.thorough
def test_good_ones_pass():
    assert passes("import math\nfrom dataclasses import dataclass\nassert math.pi > 3")


@pytest.mark.thorough
@pytest.mark.parametrize("what", BAD)
def test_bad_ones_do_not(what):
    assert not passes(BAD[what], seconds=2)


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process give it up")
def test_there_is_no_network_and_no_environment(monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    assert passes("import os; assert 'SECRET' not in os.environ and os.listdir() == []")


def test_rates(monkeypatch):
    monkeypatch.setattr(
        "griffin.evaluate.written_code.passes", lambda program: program.startswith("right")
    )
    rates, found = CodeEval().compute(
        ["t", "t"], [["right", "wrong"], ["wrong", "wrong"]], k=[1, 2]
    )
    assert rates == {"pass@1": 0.25, "pass@2": 0.5}
    assert found == {0: [True, False], 1: [False, False]}
