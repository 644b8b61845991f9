"""Texts behind tuned states in one engine: each as alone, and nothing of one serves another."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from griffin.engine import Beginning, Context, Engine, generate, hidden_pieces, score
from griffin.engine.request import Request
from griffin.model import Griffin, TunedState
from tests.engine.test_engine_cache import make_cache
from tests.support.toy_engine import CHUNK, ask, ids, plain, run

BOS = 2


def tuned(model: Griffin, keys: int, strength: float = 0.0, seed: int = 0) -> Beginning:
    state = TunedState.begin(model, [BOS] * keys, weights="w")
    generator = torch.Generator().manual_seed(seed)
    moved = {
        name: t + strength * torch.randn(t.shape, generator=generator)
        for name, t in state.tensors().items()
    }
    return Beginning.of(replace(state, **moved), BOS, model.dtype, model.device)


def behind(begins: Beginning | None, length: int = 40, seed: int = 5, **how) -> Request:
    """Return a request of BOS and some ids."""
    request = ask(ids=[BOS, *ids(length - 1, seed)], seed=1, **how)
    if begins is None:
        return request
    return replace(request, context=begins.before(request.context))


def answer(model: Griffin, request: Request):
    return plain(list(generate(model, [request])))


@pytest.fixture(scope="module")
def begun(model):
    """Return no state, an untuned one, and several that were changed."""
    return {
        "none": None,
        "untuned": tuned(model, 1),
        "one": tuned(model, 1, 0.5),
        "other": tuned(model, 1, 0.5, seed=1),
        "wide": tuned(model, 5, 0.5),
    }


def test_an_untuned_one_answers_as_none_and_others_do_not(model, begun):
    answers = {name: answer(model, behind(begins)) for name, begins in begun.items()}
    assert answers["none"] == answers["untuned"]
    assert len({str(each) for each in answers.values()}) == 4


def test_all_of_them_in_one_engine_get_what_they_get_alone(model, begun):
    engine = Engine(model, 3, chunk=CHUNK)
    requests = [behind(begins, 20 + n, n) for n, begins in enumerate(begun.values())]
    tickets = [engine.submit(request) for request in requests]
    found = run(engine)
    for ticket, request in zip(tickets, requests, strict=True):
        mine = [event for event in found if event.index == ticket.number]
        assert plain(mine) == answer(model, request)


def test_two_states_or_one_and_none_never_share_an_entry(model, begun):
    engine = Engine(model, 2, chunk=CHUNK, prefix_cache=make_cache())
    for round in range(2):
        for name, begins in begun.items():
            if name == "untuned":  # of the same numbers, but a state of its own
                continue
            request = behind(begins)
            ticket = engine.submit(request)
            assert plain(run(engine)) == answer(model, request), name
            # What lies in the cache ends at a multiple of CHUNK positions.
            keys = 0 if begins is None else begins.keys
            total = keys + len(request.context.pending)
            known = total - 1 - (total - 1) % CHUNK - keys if round else 0
            assert ticket.cached_tokens == known, name
            assert (ticket.cache_reason == "nothing known") == (round == 0)


def test_an_answers_end_is_known_behind_the_same_state_alone(model, begun):
    engine = Engine(model, 2, chunk=CHUNK, prefix_cache=make_cache())
    first = engine.submit(behind(begun["wide"], 21, max_tokens=9))
    said = [i for i, _ in plain(run(engine))]
    longer = [BOS, *ids(20, 5), *said, *ids(5, 7)]
    for name, known in (("wide", 20 + 9 - 1), ("one", 0), ("none", 0)):
        request = ask(ids=longer, seed=2)
        if begun[name] is not None:
            request = replace(request, context=begun[name].before(request.context))
        ticket = engine.submit(request)
        assert plain(run(engine)) == answer(model, request)
        assert (first.cached_tokens, ticket.cached_tokens) == (0, known), name


def test_choices_fork_from_it_and_it_stays(model, begun):
    begins = begun["wide"]
    kept = begins.state.clone()
    engine = Engine(model, 4, chunk=CHUNK, prefix_cache=make_cache())
    engine.submit(behind(begins), n=3)
    events = run(engine)
    for choice in range(3):
        request = behind(begins)
        alone = replace(request, params=request.params.replace(seed=1 + choice))
        assert plain(events, choice) == answer(model, alone)
    for ours, theirs in zip(begins.state.layers, kept.layers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_where_it_led_is_gone_on_from(model, begun):
    begins = begun["wide"]
    generation = generate(model, [behind(begins, 30, max_tokens=4)], keep_states=True)
    said = [event.id for event in generation]
    context = generation.context(0)
    assert context.state is not None and context.origin == "" and context.tokens == 34
    assert int(context.state.pos[0]) == 4 + 30 + 3  # four more positions than ids
    more = replace(behind(begins), context=context.then(ids(6, 9)))
    whole = ask(ids=[BOS, *ids(29, 5), *said, *ids(6, 9)], seed=1)
    whole = replace(whole, context=begins.before(whole.context))
    assert answer(model, more) == answer(model, whole)


def test_scores_are_those_of_the_tokens_behind_it(model, begun):
    text = [BOS, *ids(39, 3)]
    for chunk in (1, 7, 512):
        assert torch.equal(
            score(model, text, chunk=chunk, begins=begun["untuned"].state), score(model, text)
        )
    wide = begun["wide"].state
    found = score(model, text, begins=wide, chunk=9)
    with torch.no_grad():
        logits = model(torch.tensor([text[1:-1]]), wide)[0][0].log_softmax(-1)
        first = model(torch.tensor([[BOS]]))[0][0].log_softmax(-1)
    wanted = torch.cat([first, logits]).gather(1, torch.tensor(text[1:])[:, None]).squeeze(1)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert sum(len(hidden) for _, hidden in hidden_pieces(model, text, 7, begins=wide)) == 39


def test_what_cannot_stand_behind_it_is_refused(begun):
    begins = begun["one"]
    with pytest.raises(ValueError, match=r"these ids begin with 7; .* stands for BOS \(2\)"):
        begins.before(Context().then([7, 8]))
    with pytest.raises(ValueError, match="the prompt is BOS alone"):
        begins.before(Context().then([BOS]))
    there = begins.before(Context().then([BOS, 5]))
    assert begins.before(there) is there and there.pending == (5,) and there.tokens == 2
    assert begins.before(Context()).state is None
