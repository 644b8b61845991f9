"""transformers' `generate` on our trunk and state."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import DynamicCache

import griffin as package
from griffin.hf import GriffinCache, from_griffin
from griffin.ops import native
from griffin.sampling import SamplingParams
from griffin.sampling.filters import support, weights_of
from tests.hf.test_padding import LENGTHS, T, masks, padded
from tests.support.toy_folder import write_toy
from tests.support.toy_models import make_tokens

NEW = 12


@pytest.fixture
def model(model):
    model.generation_config.eos_token_id = None
    return model


def greedy(griffin, tokens, count):
    """Return tokens (1, T) and `count` more, each the likeliest after those before."""
    state = None
    piece = tokens
    for _ in range(count):
        logits, state = griffin(piece, state)
        piece = logits[:, -1:].argmax(-1)
        tokens = torch.cat([tokens, piece], 1)
    return tokens


def new(model, ids, **arguments):
    return model.generate(ids, max_new_tokens=NEW, do_sample=False, **arguments)[:, -NEW:]


@pytest.mark.parametrize("packed", [False, True])
def test_greedy_is_an_llms(packed, tmp_path):
    """The bundled model comes packed for the kernels, where there are any."""
    llm = package.load("nano" if packed else write_toy(tmp_path / "toy", vocab_size=480))
    assert llm.tokenizer.vocab_size == llm.model.config.vocab_size
    model = from_griffin(llm)
    for text in ("import json", "def f(x):", "class A"):
        ids = llm.tokenizer.encode(text)
        answer = llm.generate(ids, temperature=0, max_tokens=40).ids
        found = model.generate(torch.tensor([ids]), max_new_tokens=40, do_sample=False)
        assert tuple(found[0, len(ids) :].tolist())[: len(answer)] == answer != ()
    assert (model.model.core._fast is not None) == (packed and native.built())


def test_it_ends_where_an_llm_ends(tmp_path):
    llm = package.load(write_toy(tmp_path / "toy", vocab_size=480))
    ids = llm.tokenizer.encode("import json")
    seventh = llm.generate(ids, temperature=0, max_tokens=7).ids[-1]
    llm.stop_ids = frozenset({seventh})
    answer = llm.generate(ids, temperature=0, max_tokens=20)
    found = from_griffin(llm).generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)
    made = found[0, len(ids) :].tolist()
    assert made[-1] == seventh and len(made) <= 7
    assert tuple(made[: len(answer.ids)]) == answer.ids


@pytest.mark.sweep
@pytest.mark.parametrize("chunk", [None, 1, 7])
@pytest.mark.parametrize("side", ["left", "right", "anywhere"])
def test_padded_prompts_are_gone_on_from_as_alone(griffin, model, side, chunk):
    tokens, mask = make_tokens(griffin.config, len(LENGTHS), T), masks(side)
    found = new(model, padded(tokens, mask), attention_mask=mask, prefill_chunk_size=chunk)
    for row, length in enumerate(LENGTHS):
        alone = greedy(griffin, tokens[row : row + 1, :length], NEW)
        assert torch.equal(found[row], alone[0, length:]), (side, row)
    # ... and without a cache, where all is read again for each token
    assert torch.equal(
        new(model, padded(tokens, mask), attention_mask=mask, use_cache=False), found
    )


def test_a_cache_is_resumed_copied_and_repeated(griffin, model):
    tokens = make_tokens(griffin.config, 1, 30)
    cache = model(tokens[:, :20], use_cache=True).past_key_values
    kept = copy.deepcopy(cache)
    expected = greedy(griffin, tokens, NEW)[:, 30:]
    assert torch.equal(new(model, tokens, past_key_values=cache), expected)  # the whole text
    assert cache.get_seq_length() == 30 + NEW - 1
    # ... the new ids alone, and where the copy was taken
    all_of_it = torch.ones(1, 30, dtype=torch.int64)
    again = copy.deepcopy(kept)
    rest = new(model, tokens[:, 20:], past_key_values=again, attention_mask=all_of_it)
    assert torch.equal(rest, expected)
    kept.batch_repeat_interleave(2)
    two = new(model, tokens.repeat(2, 1), past_key_values=kept)
    assert torch.equal(two, expected.repeat(2, 1))


def test_new_ids_alone_without_a_mask_of_all_are_explained(model):
    tokens = make_tokens(model.config.shape(), 1, 30)
    cache = model(tokens[:, :20], use_cache=True).past_key_values
    with pytest.raises(ValueError, match="ids of the whole text, or new ids and an attention_mask"):
        new(model, tokens[:, 20:], past_key_values=cache)


def test_beams_reorder_the_state(model):
    tokens, mask = make_tokens(model.config.shape(), len(LENGTHS), T), masks("left")
    ids = padded(tokens, mask)
    beams = {"num_beams": 4, "num_return_sequences": 2, "attention_mask": mask}
    found = new(model, ids, **beams)
    assert torch.equal(found, new(model, ids, use_cache=False, **beams))
    assert not torch.equal(found[::2], new(model, ids, attention_mask=mask))  # beams find others
    alone = new(model, tokens[1:2, : LENGTHS[1]], num_beams=4, num_return_sequences=2)
    assert torch.equal(found[2:4], alone)


def test_probabilities_before_the_draw_are_those_of_our_sampler(griffin, model):
    tokens = make_tokens(griffin.config, 1, 20)
    params = SamplingParams(temperature=0.7, top_k=20, top_p=0.8)
    out = model.generate(
        tokens,
        max_new_tokens=NEW,
        do_sample=True,
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        output_scores=True,
        return_dict_in_generate=True,
    )
    logits = griffin(out.sequences)[0][0]
    narrowed = 0
    for step, scores in enumerate(out.scores):
        row = logits[19 + step]
        ids = support(row, params)
        assert ids is not None
        weights = weights_of(row[ids], row.max(), params.temperature)
        expected = torch.zeros_like(row).index_copy_(0, ids, weights / weights.sum())
        torch.testing.assert_close(scores[0].softmax(0), expected, atol=1e-6, rtol=1e-4)
        narrowed += len(ids) < params.top_k
    assert len(out.scores) == NEW and narrowed  # top_p has cut too
    assert isinstance(out.past_key_values, GriffinCache)


def test_what_generate_cannot_do_here_is_refused(model):
    tokens = make_tokens(model.config.shape(), 1, 9)
    with pytest.raises(ValueError, match="cache_implementation='static' is not for this model"):
        new(model, tokens, cache_implementation="static")
    with pytest.raises(ValueError, match="stateful"):
        new(model, tokens, prompt_lookup_num_tokens=3)
    with pytest.raises(ValueError, match="DynamicCache"):
        new(model, tokens, past_key_values=DynamicCache())
    assert new(model, tokens, cache_implementation="dynamic").shape == (1, NEW)
