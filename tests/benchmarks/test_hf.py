"""`python -m benchmarks hf`."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main


@pytest.mark.thorough
def test_both_generate_by_turns():
    pytest.importorskip("transformers")
    done = CliRunner().invoke(main, ["hf", "--tokens", "6", "--prompt", "5", "--rounds", "1"])
    assert done.exit_code == 0, done.output
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", done.stdout)]
    ours, _, theirs, _, share = numbers
    assert share == pytest.approx(theirs / ours, abs=0.01)
