"""Long texts: the same ids as in one piece with the library, and other threads go on meanwhile."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin.text import Tokenizer, cutter, tokenizer, tokenizer_json
from griffin.text.vocabulary import TextTooLong
from tests.support.hard_texts import texts
from tests.support.toy_folder import write_toy


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Tokenizer:
    return Tokenizer.open(write_toy(tmp_path_factory.mktemp("long") / "toy"))


@given(parts=st.lists(texts, min_size=1, max_size=5), more=st.text(max_size=40))
def test_a_long_text_has_the_ids_that_it_would_have_as_a_short_one(ours, parts, more):
    """Encoded in parts, by a call that lets others go on, or as a whole by one that does not."""
    whole = "".join(parts) or "x"
    text = whole * (4000 // len(whole) + 1) + more
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "PART", 700)
        patch.setattr(cutter, "PART", 700)
        patch.setattr(tokenizer_json, "_LONG", 300)
        long = ours.encode(text)
        patch.setattr(tokenizer, "PART", 1 << 60)
        patch.setattr(tokenizer_json, "_LONG", 1 << 60)
        assert long == ours.encode(text)


def test_a_megabyte_that_cannot_be_cut_is_refused_where_there_is_a_bound(ours):
    word = " " * ((1 << 20) + 1)
    assert "  " in ours._cutter._pairs  # of two spaces there is a token: nowhere can it be cut
    ours.most_ids = 1 << 24
    try:
        with pytest.raises(TextTooLong, match="1048577 characters in one piece"):
            ours.encode(word)
    finally:
        ours.most_ids = None


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
            with pytest.raises(TextTooLong, match=r"tokens or more; at most 1000 are taken"):
                ours.encode(text)
        assert len(ours.encode("short")) < 10
    finally:
        ours.most_ids = None
