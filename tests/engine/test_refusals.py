"""What an engine does not take, and that it tells so at once."""

from __future__ import annotations

import pytest
import torch

from griffin.engine import Context, Engine, Refused, Request, Seen, Slots
from griffin.model import State
from tests.support.toy_engine import (
    CHUNK,
    CONFIG,
    V,
    ask,
    make_model,
    run,
)


@pytest.mark.parametrize(
    ("request_", "fields", "code", "message"),
    [
        (Request(context=Context().then([])), {}, "bad_request", "the prompt is empty"),
        (Request(context=Context().then([1, V])), {}, "bad_request", f"id {V} at position 1"),
        (
            Request(context=Context().then([1, 2.0])),
            {},
            "bad_request",
            "holds float; ids are whole numbers",
        ),
        (
            Request(context=Context().then("ab")),
            {},
            "bad_request",
            "holds str; ids are whole numbers",
        ),
        (ask(3, stop_ids=frozenset(), logit_bias={V: 1.0}), {}, "bad_request", f"names token {V}"),
        (ask(3, vocab_size=10, logit_bias={11: 1.0}), {}, "bad_request", "names token 11"),
        (ask(3, vocab_size=0), {}, "bad_request", "vocab_size of the prompt is 0"),
        (ask(33), {}, "prompt_too_long", "has 33 tokens; this engine accepts 32"),
        (ask(3), {"n": 3}, "too_many_choices", "n is 3; this engine answers 1 to 2"),
        (ask(3), {"n": 0}, "too_many_choices", "n is 0"),
        (ask(3), {"deadline": 0.0}, "bad_request", "deadline is 0.0"),
        (ask(3, state=State.zeros(CONFIG, 2)), {}, "bad_request", "has 2 rows"),
        (
            ask(3, state=State.zeros(CONFIG, 1, dtype=torch.bfloat16)),
            {},
            "bad_request",
            "layer 0 is another",
        ),
        (
            ask(3, state=State.zeros(CONFIG.replace(block_types=("recurrent",)))),
            {},
            "bad_request",
            "another number of layers",
        ),
        (
            Request(context=Context(pending=(1,), seen=Seen(torch.zeros(3, dtype=torch.bool)))),
            {},
            "bad_request",
            r"seen has shape \(3,\)",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused_at_once(model, request_, fields, code, message):
    engine = Engine(model, 2, chunk=CHUNK, max_prompt_tokens=32)
    before = engine.stats()
    with pytest.raises(Refused, match=message) as refused:
        engine.submit(request_, **fields)
    assert refused.value.code == code and not refused.value.retry
    assert engine.stats() == before and engine.step() == []


def test_a_full_queue_refuses_one_more_and_takes_it_later(model):
    engine = Engine(model, 2, chunk=CHUNK, max_waiting=3)
    taken = [engine.submit(ask(3, seed=n)) for n in range(5)]
    with pytest.raises(Refused, match="5 requests are waiting for 2 slots") as refused:
        engine.submit(ask(3))
    assert refused.value.code == "queue_full" and refused.value.retry
    engine.cancel(taken[4])
    engine.submit(ask(3))
    with pytest.raises(Refused):
        engine.submit(ask(3))
    run(engine)
    none = Engine(model, 1, chunk=CHUNK, max_waiting=0)
    none.submit(ask(3))
    with pytest.raises(Refused):
        none.submit(ask(3))


def test_more_bytes_than_allowed_are_refused_before_they_are_taken(model, monkeypatch):
    row = Slots.bytes(CONFIG, torch.float32)
    assert Engine(model, 4, kept=1, max_bytes=5 * row).stats().slot_bytes == 4 * row
    monkeypatch.setattr(Slots, "__init__", lambda *_, **__: pytest.fail("memory was taken"))
    with pytest.raises(ValueError, match=f"allowed are {5 * row - 1:,}, enough for 4"):
        Engine(model, 4, kept=1, max_bytes=5 * row - 1)


def test_a_closed_engine_takes_nothing_and_holds_nothing(model):
    engine = Engine(model, 2, chunk=CHUNK)
    ticket = engine.submit(ask(9), keep_state=True)
    engine.step()
    engine.close()
    assert ticket.finish_reasons == ["cancelled"] and int(ticket.context.state.pos) == 9
    assert engine.stats().slot_bytes == 0
    with pytest.raises(Refused, match="it was closed") as refused:
        engine.submit(ask(3))
    assert refused.value.code == "closed" and not refused.value.retry
    engine.close()


def test_wrong_chunk_for_a_cache_is_refused():
    class Cache:
        every = 48

    with pytest.raises(ValueError, match="chunk=64 and the cache's every=48 do not fit"):
        Engine(make_model(), 1, chunk=64, prefix_cache=Cache())
