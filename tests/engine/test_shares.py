"""Namespaces that share an engine: none shuts another out, and nobody's answer is another."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin.engine import Engine, Refused
from griffin.engine.row import Row
from griffin.engine.scheduler import Line, next_reader
from griffin.engine.shares import QUANTUM, Debts, Queue, set_aside_for
from griffin.engine.ticket import Ticket
from tests.support.toy_engine import CHUNK, alone, ask, of, plain, run, zero_slots


def row(number: int, namespace: str = "", *, priority: int = 0, length: int = 5) -> Row:
    ticket = Ticket(number, ask(length), priority=priority, namespace=namespace, submitted=0.0)
    return Row(ticket)


def stepped(engine: Engine, events: list, until, most: int = 10_000) -> int:
    """Step until something holds; return how many turns that took."""
    for turns in range(most):
        if until():
            return turns
        events += engine.step()
    raise AssertionError("it never came to that")


# The pieces.


def test_a_free_slot_goes_to_who_has_fewest():
    line = Line()
    for number, namespace in enumerate("aaabbc"):
        line.add(row(number, namespace))
    held = {"a": 0, "b": 0, "c": 0}
    order = []
    while (each := line.next(lambda _: True, held)) is not None:
        order.append(each.ticket.namespace)
        held[each.ticket.namespace] += 1
    assert "".join(order) == "abcaba"


def test_of_those_with_as_many_the_one_that_has_waited_longest_is_next():
    line, held = Line(), dict.fromkeys("abc", 0)
    for number, namespace in enumerate("aaabbbccc"):
        line.add(row(number, namespace))
    order = [line.next(lambda _: True, held).ticket.namespace for _ in range(9)]
    assert "".join(order) == "abcabcabc"


def test_priority_comes_before_shares():
    line = Line()
    line.add(row(0, "a"))
    line.add(row(1, "b", priority=1))
    first = line.next(lambda _: True, {"b": 7})
    assert first is not None and first.ticket.namespace == "b"


def test_the_queue_is_shared():
    queue = Queue(6)
    assert all(queue.enter("a", free=2) for _ in range(8))
    assert not queue.enter("a", free=2) and len(queue) == 8
    assert [queue.enter("b", free=0) for _ in range(4)] == [True, True, True, False]
    assert [queue.enter("c", free=0) for _ in range(3)] == [True, True, False]
    for namespace in "aaaaaaaabbbcc":
        queue.leave(namespace)
    assert len(queue) == 0 and queue.enter("a", free=0)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=200))
def test_no_namespace_is_ever_shut_out_of_the_queue(moves):
    queue, waiting = Queue(10), dict.fromkeys("abcde", 0)
    for namespace, leaves in moves:
        if leaves and waiting[namespace]:
            queue.leave(namespace)
            waiting[namespace] -= 1
        elif not leaves:
            taken = queue.enter(namespace, 0)
            assert taken or waiting[namespace] >= 2  # a fifth of ten
            waiting[namespace] += taken
        assert len(queue) == sum(waiting.values()) <= 10 + 5 + 3 + 2 + 2


def test_who_makes_room():
    rows = [row(number, namespace) for number, namespace in enumerate("aaabb")]
    held = {"a": 3, "b": 2}
    assert set_aside_for(row(9, "c"), rows, held, 0) is rows[2]  # the last of those with most
    assert set_aside_for(row(9, "b"), rows, held, 0) is None
    assert set_aside_for(row(9, "a"), rows, held, 0) is None
    assert set_aside_for(row(9, "c", priority=-1), rows, held, 0) is None
    single = [row(number, namespace) for number, namespace in enumerate("ab")]
    single[0].entered = 1
    held = {"a": 1, "b": 1}
    assert set_aside_for(row(9, "c"), single, held, QUANTUM - 1) is None
    assert set_aside_for(row(9, "c"), single, held, QUANTUM) is single[1]


def test_prompts_owe_to_the_answers_of_others():
    debts = Debts()
    debts.read("a", 3.0)
    debts.read("b", 1.0)
    prompts = [row(0, "a", length=1), row(1, "b", length=60)]
    assert next_reader(prompts, 0, debts.of) is prompts[1]
    debts.level("ab")
    assert (debts.of("a"), debts.of("b")) == (2.0, 0.0)
    debts.pay(1.5)
    assert (debts.of("a"), debts.of("b"), debts.of("c")) == (0.5, 0.0, 0.0)


# The engine.


def test_a_namespace_that_fills_slots_and_queue_shuts_nobody_out(model):
    engine = Engine(model, 4, chunk=CHUNK, max_waiting=8, kept=4)
    events: list = []
    greedy = [engine.submit(ask(3, n, max_tokens=60), namespace="a") for n in range(12)]
    with pytest.raises(Refused, match="no more may"):
        engine.submit(ask(3), namespace="a")
    stepped(engine, events, lambda: engine.stats().running == 4)
    other = engine.submit(ask(3, seed=50, max_tokens=5), namespace="b")
    events += engine.step()
    assert other.prefill_seconds is not None  # it has its slot and its first token at once
    assert engine.stats().kept == 1 and engine.stats().busy == 4
    assert stepped(engine, events, lambda: other.done) <= 5
    events += run(engine)
    for ticket in (*greedy, other):
        assert plain(of(events, ticket.number)) == alone(model, ticket.request)
    # Those that were set aside came back before those that had not begun.
    ended = [e.index for e in events if e.finish_reason and e.index != other.number]
    assert ended[:4] == [0, 1, 2, 3]
    assert engine.stats().kept == 0 and zero_slots(engine)


def test_one_whose_answers_fork_keeps_places_for_those_that_make_room(model):
    """Many choices wait outside the slots, each request's with a state: others come in at once."""
    engine = Engine(model, 4, chunk=CHUNK, kept=4)
    events: list = []
    greedy = [engine.submit(ask(3, n, max_tokens=60), n=4, namespace="a") for n in range(6)]
    stepped(engine, events, lambda: engine.stats().running == 4)
    for _ in range(10):
        events += engine.step()
    others = [engine.submit(ask(3, 50 + n, max_tokens=5), n=n, namespace="b" * n) for n in (1, 2)]
    events += engine.step()
    assert all(other.prefill_seconds is not None for other in others)
    assert stepped(engine, events, lambda: all(other.done for other in others)) <= 10
    events += run(engine)
    assert all(ticket.done for ticket in greedy)
    assert engine.stats().kept == 0 and zero_slots(engine)


def test_slots_are_dealt_out_evenly(model):
    engine = Engine(model, 8, chunk=CHUNK, kept=8)
    for namespace, count in (("a", 10), ("b", 10), ("c", 2)):
        for n in range(count):
            engine.submit(ask(3, n, max_tokens=200), namespace=namespace)
        stepped(engine, engine.step(), lambda: engine.stats().reading == 0)
    assert engine._core.batch.held == {"a": 3, "b": 3, "c": 2}


@pytest.mark.parametrize("slots", [1, 2])
def test_more_namespaces_than_slots_take_turns(model, slots):
    engine = Engine(model, slots, chunk=CHUNK, kept=4)
    events: list = []
    long = [engine.submit(ask(3, n, max_tokens=150), namespace=f"n{n}") for n in range(4)]
    engine.submit(ask(3, 9, max_tokens=150), namespace="n0")
    heard = [0.0] * 4
    for turn in range(1, 1 + 150 * 5):
        for event in engine.step():
            events.append(event)
            if event.index < 4:
                heard[event.index] = turn
        waits = [turn - last for last, t in zip(heard, long, strict=True) if not t.done]
        assert max(waits, default=0) <= (QUANTUM + 8) * 4 / slots
    events += run(engine)
    for ticket in long:
        assert plain(of(events, ticket.number)) == alone(model, ticket.request)
    assert zero_slots(engine) and engine.stats().kept == 0


def test_without_places_for_states_nobody_is_set_aside_and_all_come_to_their_end(model):
    engine = Engine(model, 2, chunk=CHUNK, kept=0)
    first = [engine.submit(ask(3, n, max_tokens=20), namespace="a") for n in range(4)]
    events = engine.step()
    other = engine.submit(ask(3, 9), namespace="b")
    events += run(engine)
    for ticket in (*first, other):
        assert plain(of(events, ticket.number)) == alone(model, ticket.request)
    # Of those that wait it has fewest slots, so it was next.
    assert [e.index for e in events if e.finish_reason].index(4) <= 2


def test_alone_a_namespace_is_served_as_if_there_were_no_shares(model):
    """First come, first served, and every prompt read as fast as it can be."""
    engine = Engine(model, 2, chunk=CHUNK, kept=2)
    for n in range(6):
        engine.submit(ask(3 + n, n, max_tokens=4), namespace="only")
    events = run(engine)
    firsts = list(dict.fromkeys(e.index for e in events))
    assert firsts == sorted(firsts) and engine.stats().kept == 0


def test_a_long_prompt_leaves_half_of_the_time_to_the_answers_of_others(model, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("griffin.engine.core.time.perf_counter", lambda: clock[0])
    engine = Engine(model, 2, chunk=CHUNK, stall_seconds=1000.0, kept=2)
    core, runner, trunk = engine._core, engine._core.runner, model.trunk

    def timed(tokens, *rest, **more):
        clock[0] += 4.0 if tokens.shape[1] > 1 else 1.0  # a piece takes four steps' time
        return trunk(tokens, *rest, **more)

    monkeypatch.setattr(model, "trunk", timed)
    running = engine.submit(ask(2, 1, max_tokens=100), namespace="b")
    stepped(engine, [], lambda: engine.stats().running == 1)
    engine.submit(ask(40 * CHUNK, 2), namespace="a")
    before, steps = core.tokens_read, runner.steps
    for _ in range(60):
        engine.step()
    pieces = (core.tokens_read - before) / CHUNK
    assert 0.7 * (runner.steps - steps) <= 4 * pieces <= (runner.steps - steps) + 4
    engine.cancel(running)
    engine.step()  # nobody else runs: as fast as it can be read
    assert not core.batch.reading


ALONE: dict[tuple[int, ...], list[tuple[int, float]]] = {}


@settings(max_examples=25)
@given(data=st.data())
@pytest.mark.thorough
def test_every_request_gets_what_it_gets_alone_whoever_else_is_there(model, data):
    """Slots, places and namespaces at random; forks too. What is drawn again is known alone."""
    slots = data.draw(st.integers(1, 4))
    engine = Engine(
        model,
        slots,
        chunk=CHUNK,
        kept=data.draw(st.integers(1, 5)),
        stall_seconds=data.draw(st.sampled_from([0.0, 0.25])),
    )
    tickets, drawn, events = [], [], []
    for number in range(data.draw(st.integers(1, 12))):
        length = data.draw(st.sampled_from([1, 5, CHUNK, 30]))
        tokens = data.draw(st.sampled_from([1, 6, 50]))
        namespace = data.draw(st.sampled_from("aaabc"))
        n = data.draw(st.integers(1, min(slots, 2)))
        request = ask(length, number, max_tokens=tokens)
        tickets.append(engine.submit(request, namespace=namespace, n=n))
        drawn.append((length, number, tokens))
        for _ in range(data.draw(st.sampled_from([0, 0, 1, 5]))):
            events += engine.step()
    events += run(engine)
    for ticket, own in zip(tickets, drawn, strict=True):
        for choice in range(ticket.n):
            params = ticket.request.params.replace(seed=ticket.seeds[choice])
            single = type(ticket.request)(context=ticket.request.context, params=params)
            asked = (*own, ticket.seeds[choice])
            if asked not in ALONE:
                ALONE[asked] = alone(model, single)
            assert plain(of(events, ticket.number), choice) == ALONE[asked]
    assert engine.stats().kept == 0 and engine.stats().waiting == 0 and zero_slots(engine)
