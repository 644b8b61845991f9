"""One key attacks, another is served; `python -m tools.neighbours` has the latencies too."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.toy_folder import write_toy
from tools.neighbours.attacks import ATTACKS
from tools.neighbours.rounds import Waited, play


@pytest.mark.slow
def test_no_attack_shuts_another_key_out(tmp_path):
    """Nothing is refused, memory is within its bound, and everything comes back."""
    model = write_toy(tmp_path / "toy")
    _, found = play(tmp_path, model, list(ATTACKS), 4.0)
    assert [one.attack for one in found] == list(ATTACKS)
    for one in found:
        # How long things take is for a machine that does nothing else.
        wrong = [what for what in one.wrong if " took " not in what]
        assert not wrong and not one.refused and one.requests >= 5, (one.attack, one)


def test_what_is_typical():
    waited = Waited({"a": [0.1] * 19 + [9.0], "b": [0.5]})
    assert waited.typical("b") == 0.5 and waited.typical("a") > 1.0
    waited.seconds["a"] += [0.1] * 200
    assert waited.typical("a") == pytest.approx(0.1)


def test_the_tool_tells_its_attacks():
    asked = [sys.executable, "-m", "tools.neighbours", "--help"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert all(name in told for name in ATTACKS)
