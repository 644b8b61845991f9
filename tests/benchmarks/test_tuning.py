"""The comparison of what tuning changes: it goes on where it stopped, and its task is checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import benchmarks.tuning as tuning


def test_a_comparison_is_kept_run_by_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {"LoRA": ({"method": "lora", "rank": 2}, (1e-3, 1e-2))}
    monkeypatch.setattr(tuning, "WAYS", ways)
    monkeypatch.setattr(tuning, "SEEDS", (0, 1))
    monkeypatch.setattr(tuning, "_PAIRS", [(a, b) for a in range(1, 6) for b in range(1, 5)])
    said = list[str]()
    found = tuning.compare(tmp_path, said.append, steps=2)
    assert len(said) == 3, "both rates, then the other seed at the better one"
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept["runs"] == found["runs"] and kept["machine"]
    assert found["runs"][0]["trained"] * 4 < found["runs"][0]["bytes"]
    again = tuning.compare(tmp_path, said.append, steps=2)
    assert again["runs"] == found["runs"] and len(said) == 3
    assert "| LoRA |" in tuning.table(found)


def test_an_answer_is_right_or_not() -> None:
    prompt = "user\nWhat is 12 plus 7?\nmodel\n"
    assert tuning._right(prompt, "12 plus 7 is 19.")
    assert not tuning._right(prompt, "12 plus 7 is 18.")
