"""Texts read as a tree: to the bit what each gives alone, and far fewer tokens."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

import griffin
from griffin.engine import score
from griffin.evaluate import reading
from griffin.evaluate.reading import TextReader
from tests.support.toy_folder import CONFIG
from tests.support.toy_models import make_model


def alone(model, ids, begins):
    """Return what one request at a time gives: the sum of log-probabilities, and greediness."""
    found = score(model, ids.tolist())[begins - 1 :].tolist()
    with torch.no_grad():
        best = model(torch.from_numpy(ids[None, :-1].astype(np.int64)))[0].argmax(-1)[0]
    greedy = (best[begins - 1 :].numpy() == ids[begins:]).all()
    return sum(found), bool(greedy)


@pytest.fixture(scope="module")
def model():
    return make_model(CONFIG)


@pytest.fixture(scope="module", params=["float32", "bfloat16", "int8", "int4"])
def served(request, folder):
    """A model as it is served: all but the first take the fast trunk."""
    if request.param == "float32":
        return make_model(CONFIG)
    how = {"dtype" if request.param == "bfloat16" else "quantize": request.param}
    return griffin.load(folder, **how).model


def test_to_the_bit_what_each_gives_alone(served, monkeypatch):
    """Forks and leaves of all lengths, padded on either side, beyond the window and a call."""
    model = served
    monkeypatch.setattr(reading, "CHUNK", 96)
    monkeypatch.setattr(reading, "ROWS", 5)
    draw = random.Random(1)
    texts, begins = [], []
    for subject in range(3):
        shared = [2] + [draw.randrange(512) for _ in range(50 + 60 * subject)]
        for _ in range(6):
            asked = shared + [draw.randrange(512) for _ in range(draw.randrange(9, 130))]
            for count in (1, 1, 3, draw.randrange(4, 120)):
                texts.append(np.array(asked + [draw.randrange(512) for _ in range(count)], "u4"))
                begins.append(len(asked))
        texts.append(np.array(shared, np.uint32))  # a text that is the beginning of others
        begins.append(1)
    with torch.no_grad():  # some that greedy decoding would write
        for at in (0, 30):
            ids = texts[at][: begins[at]].tolist()
            for _ in range(3):
                ids.append(int(model(torch.tensor([ids]))[0][0, -1].argmax()))
            texts.append(np.array(ids, np.uint32))
            begins.append(begins[at])
    found = dict(TextReader(model, texts, begins))
    assert found.keys() == set(range(len(texts)))
    for number, (ids, begin) in enumerate(zip(texts, begins, strict=True)):
        assert (found[number].logprob, found[number].greedy) == alone(model, ids, begin), number
    assert {found[number].greedy for number in found} == {True, False}


def test_behind_a_tuned_state_too(tuned_llm, llm, monkeypatch):
    """Beginnings that are shared and BOS alone, before and beyond the window."""
    monkeypatch.setattr(reading, "CHUNK", 96)
    monkeypatch.setattr(reading, "ROWS", 5)
    draw = random.Random(4)
    texts = [np.array([2, 77], np.uint32)]
    for shared in (0, 45, 130):
        before = [2] + [draw.randrange(3, 512) for _ in range(shared)]
        for _ in range(7):
            more = [draw.randrange(3, 512) for _ in range(draw.randrange(1, 140))]
            texts.append(np.array(before + more, np.uint32))
    begins = [draw.randrange(1, len(ids)) for ids in texts]
    beginning = tuned_llm.beginning
    found = dict(TextReader(tuned_llm.model, texts, begins, "", beginning))
    plain = dict(TextReader(llm.model, texts, begins))
    for number, (ids, begin) in enumerate(zip(texts, begins, strict=True)):
        behind = score(tuned_llm.model, ids.tolist(), begins=beginning.state)[begin - 1 :]
        assert found[number].logprob == sum(behind.tolist()), number
    assert found[0] == plain[0], "what comes after BOS is as likely as without a state"
    assert sum(found[number] != plain[number] for number in found) > len(texts) / 2
    with pytest.raises(ValueError, match="has to begin with that"):
        TextReader(tuned_llm.model, [np.array([5, 6, 7], np.uint32)], [1], "", beginning)


def test_five_examples_are_read_once_for_a_subject(model):
    """A made-up MMLU: 4 subjects, 5 fixed examples of 80 tokens, 4 choices of one token."""
    draw = random.Random(2)
    texts, begins = [], []
    for _ in range(4):
        shared = [2] + [draw.randrange(512) for _ in range(400)]
        for _ in range(12):
            asked = shared + [draw.randrange(512) for _ in range(80)]
            texts += [np.array([*asked, choice], np.uint32) for choice in range(4)]
            begins += [len(asked)] * 4
    reader = TextReader(model, texts, begins)
    assert reader.asked == 4 * 12 * 4 * 481
    assert reader.root.tokens == 4 * 401 + 4 * 12 * 80
    assert reader.root.tokens <= 0.06 * reader.asked
    assert len(dict(reader)) == len(texts)
