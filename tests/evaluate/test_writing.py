"""Answers to prompts that begin alike: each from what it shares, and what each gets alone."""

from __future__ import annotations

import random

import numpy as np
import pytest
from lm_eval.api.instance import Instance

from griffin.evaluate import writing
from griffin.evaluate.lm_eval import GriffinLM


@pytest.fixture
def prompts():
    """Three subjects' long beginnings, some questions' too, and one prompt that begins others."""
    draw = random.Random(3)
    texts = list[str]()
    for subject, shared in enumerate((40, 120, 300)):
        before = "".join(draw.choice("abcdefgh \n") for _ in range(shared))
        texts.append(f"{before}{subject}")
        for _ in range(3):
            more = "".join(draw.choice("ijkl ") for _ in range(draw.randrange(1, 90)))
            texts += [f"{before}{subject}{more}", f"{before}{subject}{more}, and"]
    return draw.sample(texts, len(texts))


def test_each_goes_on_from_what_it_shares(llm, prompts, monkeypatch):
    monkeypatch.setattr(writing, "TOGETHER", 4)
    texts = [np.array(llm.tokenizer.encode(text), np.uint32) for text in prompts]
    groups = list(writing.contexts_of(llm, texts))
    assert max(map(len, groups)) <= 4
    found = {number: context for group in groups for number, context in group}
    assert found.keys() == set(range(len(texts)))
    read = 0
    for number, context in found.items():
        ids = texts[number].tolist()
        known = len(ids) - len(context.pending)
        assert (context.tokens, list(context.pending)) == (len(ids), ids[known:])
        assert (context.state is None) == (known == 0) and known != 1
        assert context.state is None or int(context.state.pos[0]) == known
        read += known
    assert read > sum(map(len, texts)) / 2, "most of it was read for several"


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_each_answer_is_the_one_it_gets_alone(folder, prompts, quantize, monkeypatch):
    import griffin

    monkeypatch.setattr(writing, "TOGETHER", 5)
    llm = griffin.load(folder, quantize=quantize)
    how = {"until": ["e"], "do_sample": False, "max_gen_toks": 8}
    asked = [
        Instance(request_type="generate_until", doc={}, arguments=(text, how), idx=number)
        for number, text in enumerate(prompts)
    ]
    alone = [llm.generate(p, max_tokens=8, stop=["e"], temperature=0.0).text for p in prompts]
    assert GriffinLM(llm).generate_until(asked) == alone
    assert len(set(alone)) > 1


def test_each_answer_behind_a_tuned_state_is_the_one_it_gets_alone(tuned_llm, llm, prompts):
    how = {"until": ["e"], "do_sample": False, "max_gen_toks": 8}
    asked = [
        Instance(request_type="generate_until", doc={}, arguments=(text, how), idx=number)
        for number, text in enumerate(["x", *prompts])
    ]

    def alone(llm):
        texts = ["x", *prompts]
        return [llm.generate(p, max_tokens=8, stop=["e"], temperature=0.0).text for p in texts]

    found = GriffinLM(tuned_llm).generate_until(asked)
    assert found == alone(tuned_llm) and found != alone(llm)
    with pytest.raises(ValueError, match="windows cut a text into pieces without BOS"):
        GriffinLM(tuned_llm, windows=64)
