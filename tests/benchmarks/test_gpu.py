"""The row of rivals on a GPU, tried on the CPU at toy shapes."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main


@pytest.mark.slow
def test_a_dry_run_steps_with_both_rivals(tmp_path):
    out = tmp_path / "rivals.json"
    result = CliRunner().invoke(main, ["gpu", "--dry-run", "--out", str(out)])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(out.read_text())["rows"]
    beside = [figure["what"] for figure in row["figures"] if figure["unit"] == "x"]
    assert sum("RecurrentGemma" in what for what in beside) == 1
    assert sum("transformers' Gemma" in what for what in beside) == 2
    assert all(figure["value"] > 0 for figure in row["figures"])
