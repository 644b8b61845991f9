"""Requests that are set aside, and forks that wait for a place."""

from __future__ import annotations

import pytest
import torch

from griffin.engine import Context, Engine, Refused, Request, Slots
from griffin.sampling import SamplingParams
from tests.support.toy_engine import (
    CHUNK,
    CONFIG,
    alone,
    ask,
    ids,
    of,
    plain,
    run,
    zero_slots,
)


@pytest.mark.parametrize("when", range(9))
def test_a_paused_request_goes_on_as_if_nothing_had_been(model, when):
    engine = Engine(model, 3, chunk=CHUNK, stall_seconds=0.0, kept=3)
    ticket = engine.submit(ask(40, seed=4, max_tokens=8), n=2)
    other = engine.submit(ask(7, seed=5, max_tokens=20))
    events = [e for _ in range(when) for e in engine.step()]
    engine.pause(ticket)
    assert engine.stats().paused == 1
    engine.pause(ticket)  # nothing happens
    for number in range(5):
        new = engine.step()
        events += new
        assert not of(new, ticket.number), "a paused request said something"
        if number == 0:
            fill = [engine.submit(ask(3, seed=60 + n, max_tokens=6)) for n in range(2)]
    engine.resume(ticket)
    events += run(engine)
    for choice in range(2):
        single = Request(
            context=Context().then(ids(40, 4)), params=SamplingParams(seed=4 + choice, max_tokens=8)
        )
        assert plain(of(events, ticket.number), choice) == alone(model, single)
    for each in (other, *fill):
        assert plain(of(events, each.number)) == alone(model, each.request)
    assert engine.stats().kept == 0 and engine.stats().paused == 0 and zero_slots(engine)


def test_a_pause_without_room_is_refused_and_changes_nothing(model):
    engine = Engine(model, 2, chunk=CHUNK, kept=1)
    tickets = [engine.submit(ask(3, seed=n)) for n in range(2)]
    events = engine.step()
    engine.pause(tickets[0])
    with pytest.raises(Refused, match="1 of 1 kept states are in use") as refused:
        engine.pause(tickets[1])
    assert refused.value.code == "no_room" and refused.value.retry
    assert engine.stats().kept_bytes == Slots.bytes(CONFIG, torch.float32)
    events += engine.step()
    engine.resume(tickets[0])
    events += run(engine)
    for ticket in tickets:
        assert plain(of(events, ticket.number)) == alone(model, ticket.request)


def test_a_pause_that_finds_no_memory_ends_its_request_only(model, monkeypatch):
    engine = Engine(model, 2, chunk=CHUNK)
    lost, stays = engine.submit(ask(3)), engine.submit(ask(3, seed=1))
    events = engine.step()
    monkeypatch.setattr(engine._core.batch.slots, "take", lambda _: 1 / 0)
    engine.pause(lost)
    assert lost.finish_reasons == ["error"] and engine.stats().kept == 0
    events += run(engine)
    assert plain(of(events, stays.number)) == alone(model, stays.request) and zero_slots(engine)


def test_forks_wait_while_there_is_no_place_for_them_and_others_pass(model):
    engine = Engine(model, 3, chunk=CHUNK, kept=1)
    paused = engine.submit(ask(3))
    engine.step()
    engine.pause(paused)
    forked = engine.submit(ask(4, seed=1, max_tokens=3), n=2)
    later = engine.submit(ask(4, seed=2, max_tokens=3))
    run(engine)
    assert later.done and not forked.done and engine.stats().waiting == 1
    engine.cancel(paused)
    run(engine)
    assert forked.done and engine.stats().kept == 0
