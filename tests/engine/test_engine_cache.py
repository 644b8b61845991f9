"""The engine with the prefix cache: the same answers, fewer tokens read, and it says how many."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from griffin import ops
from griffin.engine import Engine
from griffin.engine.prefix_cache import PrefixCache
from griffin.model import Griffin
from griffin.quant.quantize import quantize_model
from tests.support.toy_engine import (
    CHUNK,
    CONFIG,
    alone,
    ask,
    ids,
    make_model,
    plain,
    run,
    zero_slots,
)


@pytest.fixture(scope="module")
def packed() -> Griffin:
    return quantize_model(make_model(), "int8")


def make_cache(
    max_bytes: int = 10 << 20, every: int = CHUNK, dtype: torch.dtype = torch.float32, **how: Any
) -> PrefixCache:
    return PrefixCache("toy", CONFIG, dtype, max_bytes=max_bytes, every=every, **how)


def test_a_known_beginning_is_not_read_again(model):
    cache = make_cache()
    engine = Engine(model, 2, chunk=CHUNK, prefix_cache=cache)
    prompt = ids(50)
    cold = engine.submit(ask(ids=prompt))
    assert plain(run(engine)) == alone(model, cold.request)
    assert (cold.cached_tokens, cold.cache_reason) == (0, "nothing known")
    again = engine.submit(ask(ids=prompt, seed=3))
    assert plain(run(engine)) == alone(model, again.request)
    assert again.cached_tokens == 48 and "48" in again.cache_reason
    other = engine.submit(ask(ids=[*prompt[:37], *ids(20, 9)], seed=4))
    assert plain(run(engine)) == alone(model, other.request)
    assert (other.cached_tokens, other.cache_reason) == (32, "diverges after 37 tokens")
    stats = engine.stats()
    assert stats.tokens_reused == 80 and stats.tokens_read == 50 + 2 + 25
    assert stats.cache_bytes == cache.nbytes > 0 and zero_slots(engine)


def test_the_end_of_an_answer_is_kept_for_the_next_turn(model):
    engine = Engine(model, 2, chunk=CHUNK, prefix_cache=make_cache())
    first = engine.submit(ask(21, seed=1, max_tokens=9))
    answer = [i for i, _ in plain(run(engine))]
    second = engine.submit(ask(ids=[*ids(21, 1), *answer, *ids(5, 7)], seed=2))
    run(engine)
    assert first.cached_tokens == 0 and second.cached_tokens == 21 + 9 - 1


@pytest.mark.parametrize("chunk", [CHUNK // 2, CHUNK, 3 * CHUNK])
def test_an_exact_cache_leads_to_the_calls_of_a_reading_without(chunk, monkeypatch):
    """So that answers are the same to the bit where a call's results depend on its length: as on a
    GPU, here by torch in bfloat16."""
    model = make_model().bfloat16()
    engines = [
        Engine(model, 2, chunk=chunk, prefix_cache=cache)
        for cache in (make_cache(every=chunk, dtype=model.dtype, ends=False), None)
    ]
    calls: list[list[tuple[int, int]]] = [[], []]
    for engine, own in zip(engines, calls, strict=True):
        runner: Any = engine._core.runner

        def read(batch, row, tokens, marks=None, runner=runner.read, own=own):
            own.append((row.read, tokens.shape[1]))
            return runner(batch, row, tokens, marks)

        monkeypatch.setattr(runner, "read", read)
    talk, known = ids(3 * chunk + 2), 0
    with ops.use("eager"):
        for turn in range(4):
            answers = []
            for engine, own in zip(engines, calls, strict=True):
                own.clear()
                ticket = engine.submit(ask(ids=talk, seed=turn, max_tokens=chunk + 3))
                answers.append(plain(run(engine)))
                assert ticket.cached_tokens == (known if engine is engines[0] else 0)
            cached, cold = calls
            assert cached == cold[known // chunk :] and answers[0] == answers[1]
            # What an answer read is read anew: its steps are other calls.
            known = (len(talk) - 1) // chunk * chunk if len(talk) % chunk else len(talk)
            talk = [*talk, *(i for i, _ in answers[0]), *ids(1 + turn % 4, turn)]


def test_namespaces_and_states_and_those_who_refuse_do_not_meet_it(model):
    cache = make_cache()
    engine = Engine(model, 2, chunk=CHUNK, prefix_cache=cache)
    engine.submit(ask(40), namespace="a")
    run(engine)
    foreign = engine.submit(ask(40), namespace="b")
    without = engine.submit(ask(40), namespace="a", use_cache=False)
    run(engine)
    assert (foreign.cached_tokens, without.cached_tokens) == (0, 0)
    assert without.cache_reason == "the cache was not to be used"
    kept = engine.submit(ask(40), namespace="a", keep_state=True)
    run(engine)
    held = cache.counts.checkpoints
    going = engine.submit(ask(ids=ids(40, 3), state=kept.context.state), namespace="a")
    run(engine)
    assert kept.cached_tokens == 32 and going.cached_tokens == 0
    assert going.cache_reason == "the request brings a state of its own"
    assert cache.counts.checkpoints == held, (
        "a state's beginning is unknown; nothing of it can be kept"
    )
    plainly = Engine(model, 1, chunk=CHUNK)
    assert plainly.submit(ask(3)).cached_tokens is None
    ticket = plainly.submit(ask(3))
    run(plainly)
    assert ticket.cached_tokens == 0 and ticket.cache_reason == "there is no cache"


@pytest.mark.parametrize("max_bytes", [0, 60_000, 10 << 20])
def test_random_prompts_that_share_and_diverge_get_the_same_with_and_without(packed, max_bytes):
    chance = random.Random(5)
    cache = make_cache(max_bytes)
    engine = Engine(packed, 3, chunk=CHUNK, prefix_cache=cache)
    stems = [ids(70, seed) for seed in range(3)]
    tickets, events = [], []
    for number in range(30):
        stem = chance.choice(stems)
        prompt = [
            *stem[: chance.randrange(1, len(stem))],
            *ids(chance.randrange(1, 12), 100 + number),
        ]
        tickets.append(engine.submit(ask(ids=prompt, seed=number, max_tokens=2)))
        if chance.random() < 0.7:
            events += engine.step()
        assert cache.nbytes <= max_bytes
    events += run(engine)
    assert cache.nbytes <= max_bytes
    for ticket in tickets:
        own = [e for e in events if e.index == ticket.number]
        assert plain(own) == alone(packed, ticket.request)
    if max_bytes > 1 << 20:
        assert sum(t.cached_tokens >= CHUNK for t in tickets) > 15


@pytest.mark.parametrize("format", ["int8", "bf16"])
def test_a_conversation_never_reads_a_turn_twice_and_says_the_same(format):
    model = quantize_model(make_model(), format)
    engine = Engine(model, 2, chunk=CHUNK, prefix_cache=make_cache())
    talk, known, fresh = ids(10), 0, 0
    for turn in range(8):
        ticket = engine.submit(ask(ids=talk, seed=turn, max_tokens=7))
        answer = plain(run(engine))
        assert answer == alone(model, ticket.request) and ticket.cached_tokens == known
        fresh += len(talk) - known
        known = len(talk) + len(answer) - 1  # all but the last token chosen
        talk = [*talk, *(i for i, _ in answer), *ids(1 + turn % 4, turn)]
    assert engine.stats().tokens_read == fresh


def test_a_cache_that_breaks_ends_the_request_at_hand_only(model, monkeypatch):
    cache = make_cache()
    engine = Engine(model, 1, chunk=CHUNK, prefix_cache=cache)
    put, find = cache.put, cache.find
    for name, broken in (("put", put), ("find", find)):
        monkeypatch.setattr(cache, name, lambda *_: 1 / 0)
        lost = engine.submit(ask(20))
        run(engine)
        assert lost.finish_reasons == ["error"]
        monkeypatch.setattr(cache, name, broken)
        next_one = engine.submit(ask(20, seed=8))
        assert plain(run(engine)) == alone(model, next_one.request)
    assert zero_slots(engine)
