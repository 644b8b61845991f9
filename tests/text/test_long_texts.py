"""Long texts: the same ids as in one piece with the library, and other threads go on meanwhile."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin.text import Tokenizer, tokenizer_json
from griffin.text.vocabulary import TextTooLong
from tests.support.hard_texts import texts
from tests.support.toy_folder import write_toy


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Tokenizer:
    return Tokenizer.open(write_toy(tmp_path_factory.mktemp("long") / "toy"))


@given(part=texts.filter(bool), more=st.text(max_size=40))
def test_a_long_text_has_the_ids_that_it_would_have_as_a_short_one(ours, part, more):
    text = part * (4000 // len(part) + 1) + more
    long = ours.encode(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_json, "_LONG", 1 << 60)
        assert long == ours.encode(text)


def test_other_threads_go_on_while_a_text_is_encoded(ours):
    """Counted in turns, not in seconds: with the lock held all along there would be none."""
    text = "A long text, with words. " * 20_000
    begun, over, turns = threading.Event(), threading.Event(), 0

    def encode() -> None:
        begun.set()
        ours.encode(text)
        over.set()

    thread = threading.Thread(target=encode)
    thread.start()
    assert begun.wait(60)
    while not over.is_set():
        turns += 1
        time.sleep(0.001)
    thread.join()
    assert turns > 10


def test_a_text_of_too_many_tokens_is_refused(ours):
    ours.most_ids = 1000
    try:
        for text in ("x y " * 500, "x y " * 50_000):
            with pytest.raises(TextTooLong, match=r"tokens; at most 1000 are taken"):
                ours.encode(text)
        assert len(ours.encode("short")) < 10
    finally:
        ours.most_ids = None
