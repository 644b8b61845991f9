"""Texts by position: sums of what scoring says, cut where the edges are."""

from __future__ import annotations

import math

import pytest

import griffin
from griffin.engine.read import CHUNK
from griffin.evaluate.positions import doublings, measure_positions, streams
from tests.support.toy_folder import write_toy

TEXTS = ("def f(x):\n    return x + 1\n" * 9, "é is two bytes", "import os\n" * 3, "")


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    return griffin.load(write_toy(tmp_path_factory.mktemp("model") / "toy"), device="cpu")


def test_spans_are_sums_of_what_scoring_says(llm):
    read: list[int] = []
    spans = measure_positions(llm, TEXTS, [1, 8, 32], advance=read.append)
    scores = [llm.score(text) for text in TEXTS[:3]]
    ranges = [(0, 7), (7, 31), (31, None)]
    for span, (begin, end) in zip(spans, ranges, strict=True):
        nats = -math.fsum(p for score in scores for p in score.logprobs[begin:end])
        assert span.nats == pytest.approx(nats, abs=1e-4)
        assert span.tokens == sum(len(score.logprobs[begin:end]) for score in scores)
        assert span.nats_per_token == pytest.approx(nats / span.tokens, abs=1e-6)
        assert span.bits_per_byte == pytest.approx(nats / math.log(2) / span.bytes, abs=1e-6)
    assert sum(span.bytes for span in spans) == sum(len(text.encode()) for text in TEXTS)
    lengths = [len(score.logprobs) + 1 for score in scores]
    assert sum(read) == sum(lengths) and spans[-1].end == max(lengths)


def test_a_long_text_is_told_piece_by_piece(llm):
    read: list[int] = []
    measure_positions(llm, [[5] * (2 * CHUNK + 3)], [1], advance=read.append)
    assert read == [CHUNK, CHUNK, 2, 1]


def test_what_no_text_reaches_is_left_out(llm):
    ids = llm.tokenizer.encode("abc")
    (span,) = measure_positions(llm, [ids], [1, 500])
    assert (span.begin, span.end, span.tokens) == (1, 500, len(ids) - 1)
    assert not measure_positions(llm, [], [1])
    for edges in ([], [0, 4], [4, 4], [8, 2]):
        with pytest.raises(ValueError, match="edges are positive and increase, unlike"):
            measure_positions(llm, [ids], edges)


def test_edges_and_streams():
    assert doublings(3000) == [1, 256, 512, 1024, 2048] and doublings(100) == [1]
    assert list(streams([[1, 2, 3], [4], [5, 6, 7, 8]], 3)) == [[1, 2, 3], [4, 5, 6]]
