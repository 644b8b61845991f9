"""Pads before, behind and between a row's tokens: each row is what it is alone."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from griffin.hf import GriffinCache
from tests.support.toy_models import make_tokens

LENGTHS = (40, 13, 1)
T = 40


def padded(tokens, mask):
    """Lay each row's tokens where the mask has ones; pads are an id that would be seen."""
    ids = torch.full_like(tokens, 7)
    for row, places in enumerate(mask.bool()):
        ids[row, places] = tokens[row, : int(places.sum())]
    return ids


def masks(side):
    mask = torch.zeros(len(LENGTHS), T, dtype=torch.int64)
    for row, length in enumerate(LENGTHS):
        if side == "left":
            mask[row, T - length :] = 1
        elif side == "right":
            mask[row, :length] = 1
        else:  # anywhere
            generator = torch.Generator().manual_seed(row)
            mask[row, torch.randperm(T, generator=generator)[:length]] = 1
    return mask


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def same_state(found, expected, row):
    assert found.pos[row] == expected.pos[0]
    for layer, other in zip(found.layers, expected.layers, strict=True):
        for tensor, alone in zip(layer, other, strict=True):
            same(tensor[row], alone[0])


@pytest.mark.parametrize("side", ["left", "right", "anywhere"])
def test_a_row_is_what_it_is_alone(model, side):
    tokens, mask = make_tokens(model.config.shape(), len(LENGTHS), T), masks(side)
    found = model(
        padded(tokens, mask), attention_mask=mask, use_cache=True, output_hidden_states=True
    )
    for row, length in enumerate(LENGTHS):
        alone = model(tokens[row : row + 1, :length], use_cache=True, output_hidden_states=True)
        places = mask[row].bool()
        same(found.logits[row, places], alone.logits[0])
        same_state(found.past_key_values.state, alone.past_key_values.state, row)
        assert (
            len(found.hidden_states)
            == len(alone.hidden_states)
            == model.config.num_hidden_layers + 1
        )
        for hidden, other in zip(found.hidden_states, alone.hidden_states, strict=True):
            same(hidden[row, places], other[0])
        if places.nonzero()[-1] < T - 1:  # a pad behind says what the token before it said
            same(found.logits[row, -1], alone.logits[0, -1])


@pytest.mark.sweep
@pytest.mark.parametrize("whole", [False, True], ids=["mask of the piece", "mask so far"])
@pytest.mark.parametrize("side", ["none", "left", "right", "anywhere"])
@pytest.mark.parametrize("cuts", [(1, 2, 3, 17), (16, 33), (39,)], ids=str)
def test_pieces_are_the_whole(model, side, cuts, whole):
    """Wherever the cuts are: in pieces that hold nothing but pads of a row too."""
    tokens = make_tokens(model.config.shape(), len(LENGTHS), T)
    mask = torch.ones_like(tokens) if side == "none" else masks(side)
    ids = padded(tokens, mask)
    once = model(ids, attention_mask=mask, use_cache=True)
    cache, logits = GriffinCache(), []
    for start, stop in zip((0, *cuts), (*cuts, T), strict=True):
        seen = mask[:, 0 if whole else start : stop]
        out = model(ids[:, start:stop], attention_mask=seen, past_key_values=cache)
        assert out.past_key_values is cache and cache.get_seq_length() == stop
        logits.append(out.logits)
    begun = mask.cumsum(1) > 0  # before a row's first token there is nothing to say
    same(torch.cat(logits, 1)[begun], once.logits[begun])
    for row in range(len(LENGTHS)):
        same_state(cache.state, once.past_key_values.state.select([row]), row)


def test_documents_in_a_row_do_not_see_each_other(model):
    tokens = make_tokens(model.config.shape(), 1, 30)
    places = torch.cat([torch.arange(12), torch.arange(18)])[None]
    found = model(tokens, position_ids=places).logits
    same(found[:, :12], model(tokens[:, :12]).logits)
    same(found[:, 12:], model(tokens[:, 12:]).logits)
    # ... behind padding too
    mask = torch.ones(1, 35, dtype=torch.int64)
    mask[0, :5] = 0
    left = torch.nn.functional.pad(tokens, (5, 0))
    asked = torch.nn.functional.pad(places, (5, 0))
    same(model(left, attention_mask=mask, position_ids=asked).logits[:, 5:], found)


def test_positions_that_run_on_change_nothing(model):
    tokens = make_tokens(model.config.shape(), 2, 20)
    first = model(tokens[:, :8], position_ids=torch.arange(8)[None], use_cache=True)
    rest = model(
        tokens[:, 8:],
        position_ids=torch.arange(8, 20)[None],
        past_key_values=first.past_key_values,
    )
    assert torch.equal(torch.cat([first.logits, rest.logits], 1), model(tokens).logits)


def test_which_logits_are_kept(model):
    tokens = make_tokens(model.config.shape(), 2, 20)
    logits = model(tokens).logits
    assert torch.equal(model(tokens, logits_to_keep=1).logits, logits[:, -1:])
    some = torch.tensor([3, 5])
    assert torch.equal(model(tokens, logits_to_keep=some).logits, logits[:, some])
    plain = model(tokens, return_dict=False, use_cache=False)
    assert len(plain) == 1 and torch.equal(plain[0], logits)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"attention_mask": torch.ones(2, 7)}, r"attention_mask is \(2, 7\)"),
        ({"attention_mask": torch.ones(2, 1, 5, 5)}, r"attention_mask is \(2, 1, 5, 5\)"),
        ({"past_key_values": DynamicCache()}, r"cache \(past_key_values\) is a DynamicCache"),
        ({"past_key_values": GriffinCache(), "cache": GriffinCache()}, "two names of one thing"),
        ({"inputs_embeds": torch.ones(2, 5, 3)}, "inputs_embeds is not taken"),
        ({"output_attentions": True}, "output_attentions"),
        ({"token_type_ids": torch.zeros(2, 5)}, "token_type_ids"),
        ({"position_ids": torch.tensor([[0, 1, 5, 6, 7]])}, r"segment_pos\[0, 2\] is 5"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_refused(model, arguments, words):
    tokens = make_tokens(model.config.shape(), 2, 5)
    with pytest.raises(ValueError, match=words):
        model(tokens, **arguments)
    with pytest.raises(ValueError, match="give input_ids"):
        model()


def test_a_cache_from_a_state_leaves_the_state(griffin, model):
    tokens = make_tokens(griffin.config, 2, 30)
    state = griffin(tokens[:, :20])[1]
    cache = GriffinCache(state)
    assert (
        cache.get_seq_length() == 20 and cache.batch_size == 2 and len(cache) == len(state.layers)
    )
    found = model(tokens[:, 20:], past_key_values=cache).logits
    assert torch.equal(found, griffin(tokens[:, 20:], state)[0])
    with pytest.raises(ValueError, match="cannot be cut back"):
        cache.crop(1)
    cache.crop(0)
    cache.reset()
    assert cache.get_seq_length() == 0 and not cache.is_initialized
