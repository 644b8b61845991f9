"""Which text of a reward function a run has learned from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from griffin.tune.reward import note_reward


def _kept(path: Path) -> list[tuple[int, str]]:
    return [(each["after_step"], each["digest"]) for each in json.loads(path.read_text())]


def test_an_edit_is_said_until_a_step_has_learned_from_it(tmp_path: Path) -> None:
    path = tmp_path / "reward.json"

    def note(digest: str, step: int) -> str:
        return note_reward(path, "mine.py:reward", digest, step)

    assert note("first", 0) == note("first", 0) == note("first", 4) == ""
    assert "mine.py:reward is not what it was when step 4 was done" in note("second", 4)
    assert note("second", 4)  # no checkpoint since
    assert _kept(path) == [(0, "first"), (4, "second")]
    assert note("second", 6) == ""
    assert "when step 6 was done" in note("first", 6)
    assert _kept(path) == [(0, "first"), (4, "second"), (6, "first")]


def test_an_edit_that_no_step_learned_from_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "reward.json"
    note_reward(path, "mine.py:reward", "first", 0)
    assert note_reward(path, "mine.py:reward", "second", 4)
    assert note_reward(path, "mine.py:reward", "first", 4) == ""
    assert _kept(path) == [(0, "first")]
    note_reward(path, "mine.py:reward", "second", 0)  # another run takes the folder
    assert _kept(path) == [(0, "second")]


@pytest.mark.parametrize("text", ["", "3", '[{"after_step": 1}]', "[1]"])
def test_a_file_that_is_damaged_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "reward.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"reward\.json is not readable"):
        note_reward(path, "mine.py:reward", "first", 4)
