"""The demo: questions, a kill in the middle of an answer, and the same conversation again."""

from __future__ import annotations

import re

import pytest

from mini.split import held_out
from tests.support.toy_folder import write_toy
from tools import demo


def test_the_conversation_goes_on_after_the_kill(tmp_path, capsys):
    demo.main(str(write_toy(tmp_path / "mini-it")))
    first, killed, second = capsys.readouterr().out.partition("[kill -9, in the middle of an")
    assert killed and "began demo" in first
    for question in (*demo.QUESTIONS, demo.LONGEST):
        assert f">>> {question}\n" in first
    # What was finished is there; what was being answered is asked again.
    assert int(re.findall(r"resumed demo: (\d+) tokens", second)[0]) > 30
    assert f">>> {demo.LONGEST}\n" in second and demo.LONGEST not in second.partition(">>> ")[0]


@pytest.mark.thorough
def test_nano_says_that_it_is_a_toy(capsys):
    demo.main("nano")
    out = capsys.readouterr().out
    assert "nano is a toy" in out and "resumed demo" in out


def test_nothing_of_what_the_demo_asks_was_learned():
    # Its topics; senses by their places in WordNet 3.0.
    topics = ("43+49", "word ambulance", "kind n04586072", "meaning n13777344")
    assert all(held_out(topic) for topic in topics)
