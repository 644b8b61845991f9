"""Rows, steps and sinks that fail: whom it concerns ends, and nobody else notices."""

from __future__ import annotations

import pytest
import torch

from griffin.engine import End, Engine, Refused
from griffin.engine.devices import out_of_memory
from griffin.model import State
from tests.support.layers import recurrent
from tests.support.toy_engine import (
    CHUNK,
    CONFIG,
    alone,
    ask,
    of,
    plain,
    run,
    zero_slots,
)


def test_a_sink_that_cancels_stops_before_anything_more_is_read(model):
    engine = Engine(model, 2, chunk=CHUNK)
    seen = []

    def sink(event):
        seen.append(event)
        if len(seen) == 3:
            engine.cancel(ticket)

    ticket = engine.submit(ask(10), sink=sink, keep_state=True)
    run(engine)
    assert len(seen) == 4 and seen[-1] == End(0, 0, "cancelled")
    assert int(ticket.context.state.pos) == 12 and ticket.context.pending == (seen[2].id,)
    with pytest.raises(Refused, match="go to its sink"):
        next(ticket.events())


def test_a_row_whose_logits_are_not_finite_ends_alone(model):
    broken = State.zeros(CONFIG)
    recurrent(broken).lru.fill_(torch.nan)
    broken.pos.fill_(5)
    engine = Engine(model, 3, chunk=CHUNK)
    good = [engine.submit(ask(5, seed=1)), engine.submit(ask(9, seed=2))]
    events = engine.step()
    bad = engine.submit(ask(3, state=broken))
    events += run(engine)
    (end,) = of(events, bad.number)
    assert isinstance(end, End) and end.finish_reason == "error"
    assert isinstance(end.error, FloatingPointError) and bad.done
    for ticket in good:
        assert plain(of(events, ticket.number)) == alone(model, ticket.request)
    assert zero_slots(engine)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_step_that_raises_ends_whom_it_concerned(model, monkeypatch, rows):
    engine = Engine(model, 3, chunk=CHUNK, stall_seconds=0.0)
    hit = [engine.submit(ask(5, seed=n), keep_state=True) for n in range(2)]
    engine.step()
    engine.step()
    reading = engine.submit(ask(30, seed=9), n=2)
    trunk = model.trunk

    def fails_once(tokens, *rest, **more):
        if len(tokens) == rows:
            monkeypatch.undo()
            raise MemoryError("no room for a step")
        return trunk(tokens, *rest, **more)

    monkeypatch.setattr(model, "trunk", fails_once)
    events = engine.step()
    concerned = hit if rows == 2 else [reading]
    assert [(e.index, e.choice) for e in events if isinstance(e, End)] == [
        (t.number, c) for t in concerned for c in range(t.n)
    ]
    assert all(str(e.error) == "no room for a step" for e in events if isinstance(e, End))
    assert all(t.done and t.context is None for t in concerned)
    again = engine.submit(ask(6, seed=11))
    events += run(engine)
    assert plain(of(events, again.number)) == alone(model, again.request)
    assert zero_slots(engine) and engine.stats().kept == 0


def test_ctrl_c_in_the_middle_of_a_step_ends_all_and_leaves_a_clean_engine(model, monkeypatch):
    engine = Engine(model, 2, chunk=CHUNK, kept=2)
    tickets = [engine.submit(ask(5, seed=n), keep_state=True) for n in range(4)]
    engine.step()
    engine.pause(tickets[0])
    engine.step()
    block = type(model.model.layers[1])
    forward = block.forward

    def torn(self, *rest):
        if self is model.model.layers[1]:
            raise KeyboardInterrupt
        return forward(self, *rest)

    monkeypatch.setattr(block, "forward", torn)
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    monkeypatch.undo()
    assert all(t.done and t.finish_reasons == ["cancelled"] and t.context is None for t in tickets)
    assert zero_slots(engine) and engine.stats().kept == 0 and engine.stats().waiting == 0
    again = engine.submit(ask(6, seed=11))
    assert plain(run(engine)) == alone(model, again.request)


def test_a_sink_that_raises_loses_its_request_and_no_other(model):
    engine = Engine(model, 2, chunk=CHUNK)

    def sink(event):
        raise ConnectionError("gone")

    lost = engine.submit(ask(5), sink=sink)
    stays = engine.submit(ask(5, seed=1))
    events = run(engine)
    assert lost.finish_reasons == ["cancelled"] and isinstance(lost.sink_error, ConnectionError)
    assert len(plain(of(events, 0))) == 1 and lost.done
    assert plain(of(events, 1)) == alone(model, stays.request)


def test_a_sink_must_not_step(model):
    engine = Engine(model, 1, chunk=CHUNK)
    ticket = engine.submit(ask(5), sink=lambda _: engine.step())
    run(engine)
    assert "must not call step" in str(ticket.sink_error)


def test_a_ticket_of_another_engine_is_nobody_here(model):
    one, other = (Engine(model, 1, chunk=CHUNK) for _ in range(2))
    mine, foreign = one.submit(ask(5)), other.submit(ask(5))
    one.cancel(foreign)
    run(one)
    assert mine.finish_reasons == ["length"] and not foreign.done


@pytest.mark.parametrize("n", [1, 2])
def test_no_memory_for_a_copy_ends_the_request_and_not_the_engine(model, monkeypatch, n):
    """A state that was to be kept, or to be shared by choices that find no slot."""
    engine = Engine(model, 2, chunk=CHUNK)
    good = engine.submit(ask(5, seed=1))
    events = engine.step()
    take = engine._core.batch.take

    def full(row):
        if row.ticket is not good:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return take(row)

    monkeypatch.setattr(engine._core.batch, "take", full)
    hit = engine.submit(ask(9, seed=2), n=n, keep_state=n == 1)
    third = engine.submit(ask(4, seed=5))
    events += run(engine)
    ended = [e for e in of(events, hit.number) if isinstance(e, End)]
    assert [out_of_memory(e.error) for e in ended] == [True] * n
    for ticket in (good, third):
        assert plain(of(events, ticket.number)) == alone(model, ticket.request)
    assert zero_slots(engine) and not engine.closed


def test_a_device_that_breaks_ends_everybody_with_the_reason(model, monkeypatch):
    """After an error of the device itself nothing can be cleared, copied or read any more."""
    engine = Engine(model, 2, chunk=CHUNK)
    tickets = [engine.submit(ask(5, seed=n, max_tokens=50)) for n in range(3)]
    engine.step()
    why = "CUDA error: device-side assert triggered"

    def broken(*_):
        raise RuntimeError(why)

    monkeypatch.setattr(engine._core.batch.slots, "clear", broken)
    monkeypatch.setattr(engine._core.runner, "step", broken)
    with pytest.raises(RuntimeError, match=why):
        run(engine)
    assert [ticket.finish_reasons for ticket in tickets] == [["error"]] * 3
