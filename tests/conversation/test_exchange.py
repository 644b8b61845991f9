from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin.conversation import join_exchange, split_exchange


@given(st.text(), st.text())
def test_message_and_answer_come_apart_again(message, answer):
    assert split_exchange(join_exchange(message, answer)) == (message, answer)


def test_lines_that_look_like_the_marks():
    for message, answer in (
        ("> a\n\n> b", "> c\n\nd"),
        ("", ""),
        ("a\n", "\n"),
        ("\r\x0b", "\u2028"),
    ):
        assert split_exchange(join_exchange(message, answer)) == (message, answer)


@pytest.mark.parametrize("text", ["", "an answer", "> a message alone", "> a\nb"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="not a message and its answer"):
        split_exchange(text)
