"""Programs that a model wrote: those that pass, and those that fail, hang, grow, leave or call."""

from __future__ import annotations

import socket
import subprocess
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
def test_there_is_no_environment_and_an_empty_folder(monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    assert passes("import os; assert 'SECRET' not in os.environ and os.listdir() == []")


UNSHARED = "import ctypes; raise SystemExit(ctypes.CDLL(None).unshare(0x10000000 | 0x40000000))"


@pytest.mark.thorough
def test_there_is_no_network():
    """Not even to this machine: a port that answers us does not answer the program."""
    if subprocess.run([sys.executable, "-c", UNSHARED]).returncode:
        pytest.skip("this system lets no process give its network up")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        place = listening.getsockname()
        socket.create_connection(place, 5).close()
        calls = f"import socket; socket.create_connection({place}, 5)"
        assert not passes(calls)
        assert passes(f"try:\n    {calls}\nexcept OSError:\n    pass\nelse:\n    raise SystemExit")


def test_rates(monkeypatch):
    monkeypatch.setattr(
        "griffin.evaluate.written_code.passes", lambda program: program.startswith("right")
    )
    rates, found = CodeEval().compute(
        ["t", "t"], [["right", "wrong"], ["wrong", "wrong"]], k=[1, 2]
    )
    assert rates == {"pass@1": 0.25, "pass@2": 0.5}
    assert found == {0: [True, False], 1: [False, False]}
