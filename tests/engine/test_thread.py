"""The engine on a thread of its own: submit from anywhere, wait, close."""

from __future__ import annotations

import threading

import pytest

from griffin import ops
from griffin.engine import End, Engine, Refused
from tests.support.toy_engine import CHUNK, alone, ask, plain


def test_many_threads_each_get_their_own_answers(model):
    failures = []

    def client(number: int) -> None:
        for turn in range(3):
            request = ask(3 + 7 * number, seed=10 * number + turn)
            events = list(engine.submit(request).events(seconds=60))
            if plain(events) != alone(model, request) or events[-1].finish_reason != "length":
                failures.append((number, turn))

    with Engine(model, 3, chunk=CHUNK) as engine:
        clients = [threading.Thread(target=client, args=(n,)) for n in range(4)]
        for each in clients:
            each.start()
        for each in clients:
            each.join(60)
    assert not failures
    assert engine.stats().busy == 0


def test_the_thread_sleeps_when_there_is_nothing_to_do_and_wakes_for_a_deadline(model, monkeypatch):
    engine = Engine(model, 1, chunk=CHUNK)
    ticket = engine.submit(ask(3, max_tokens=10_000), deadline=0.2)
    engine.pause(ticket)
    engine.step()
    steps = []
    step = engine.step
    monkeypatch.setattr(engine, "step", lambda: steps.append(0) or step())
    with engine:
        assert ticket.wait(60) and ticket.finish_reasons == ["deadline"]
        assert len(steps) <= 4, "it spins"


def test_events_time_out_where_nothing_comes(model):
    engine = Engine(model, 1, chunk=CHUNK)
    with pytest.raises(TimeoutError, match=r"no event of request 0 in 0\.01 seconds"):
        next(engine.submit(ask(3)).events(seconds=0.01))


@pytest.mark.parametrize("drain", [False, True])
def test_close_ends_or_waits(model, drain):
    engine = Engine(model, 2, chunk=CHUNK, kept=2).start()
    tickets = [engine.submit(ask(4, seed=n, max_tokens=40), keep_state=True) for n in range(5)]
    held = engine.submit(ask(4, seed=9, max_tokens=40))
    engine.pause(held)
    engine.close(drain=drain)
    expected = "length" if drain else "cancelled"
    assert [t.finish_reasons for t in tickets] == [[expected]] * 5 and all(t.done for t in tickets)
    assert held.finish_reasons == ["cancelled"]
    if drain:
        for ticket in tickets:
            assert plain(ticket.events(1)) == alone(model, ticket.request)
    with pytest.raises(Refused, match="it was closed"):
        engine.submit(ask(3))


def test_who_owns_the_loop(model):
    with Engine(model, 1, chunk=CHUNK) as engine:
        with pytest.raises(RuntimeError, match="thread of its own"):
            engine.step()
        with pytest.raises(RuntimeError, match="runs already"):
            engine.start()
    with pytest.raises(RuntimeError, match="is closed"):
        engine.start()


def test_a_sink_may_close_the_engine(model):
    engine = Engine(model, 1, chunk=CHUNK).start()
    ticket = engine.submit(ask(3), sink=lambda _: engine.close())
    assert ticket.wait(60) and ticket.finish_reasons == ["cancelled"] and ticket.sink_error is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_broken_thread_tells_everyone(model, monkeypatch):
    engine = Engine(model, 1, chunk=CHUNK)
    tickets = [engine.submit(ask(3, seed=n)) for n in range(2)]
    calls = []

    def decode():
        calls.append(0)
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(engine._core, "decode", decode)
    engine.start()
    for ticket in tickets:
        assert ticket.wait(60)
        last = list(ticket.events(1))[-1]
        assert isinstance(last, End) and last.finish_reason == "error"
        assert isinstance(last.error, ZeroDivisionError)
    with pytest.raises(Refused, match="its thread broke: ZeroDivisionError") as refused:
        engine.submit(ask(3))
    assert refused.value.code == "closed" and len(calls) == 1
    engine.close()


def test_the_choice_of_implementations_comes_along(model, monkeypatch):
    seen = []
    trunk = model.trunk
    monkeypatch.setattr(
        model, "trunk", lambda *a, **k: seen.append(ops.describe()) or trunk(*a, **k)
    )
    with ops.use("reference"), Engine(model, 1, chunk=CHUNK) as engine:
        assert engine.submit(ask(3, max_tokens=2)).wait(60)
    assert seen and all(each["rg_lru"] == "reference" for each in seen)
