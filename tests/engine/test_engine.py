"""The engine a step at a time: every answer is the one the request gets alone, whatever happens
around it."""

from __future__ import annotations

import copy
import time

import pytest
import torch

from griffin.engine import Context, End, Engine, Refused, Request, Seen, Slots
from griffin.engine.slots import tensors
from griffin.model import State
from griffin.sampling import SamplingParams
from tests.support.layers import recurrent
from tests.support.toy_engine import (
    CHUNK,
    CONFIG,
    V,
    alone,
    ask,
    ids,
    make_model,
    plain,
    run,
    same,
    zero_slots,
)


def ends(events) -> list[tuple[int, int, str]]:
    return [(e.index, e.choice, e.finish_reason) for e in events if e.finish_reason]


def of(events, index: int):
    return [e for e in events if e.index == index]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stall", [0.0, 10.0])
def test_ragged_requests_get_what_they_get_alone(model, dtype, stall):
    model = copy.deepcopy(model).to(dtype)
    asked = [
        ask(n, seed=n, max_tokens=3 + n % 7, logprobs=2) for n in (1, 2, 7, 8, 9, 17, 40, 23, 5, 64)
    ]
    engine = Engine(model, 3, chunk=CHUNK, stall_seconds=stall)
    for request in asked:
        engine.submit(request)
    events = run(engine)
    for index, request in enumerate(asked):
        assert plain(of(events, index)) == alone(model, request)
    assert ends(events) == [(e.index, 0, "length") for e in events if e.finish_reason]
    stats = engine.stats()
    assert (stats.busy, stats.waiting, stats.kept) == (0, 0, 0) and zero_slots(engine)
    assert stats.tokens_read == sum(len(r.context.pending) for r in asked)
    assert stats.tokens_generated == sum(r.params.max_tokens for r in asked)


def test_a_step_gives_a_row_one_token_at_most(model):
    engine = Engine(model, 4, chunk=CHUNK, stall_seconds=10)
    for n in (3, 12, 30):
        engine.submit(ask(n, n), n=1)
    while handed := engine.step():
        keys = [(e.index, e.choice) for e in handed]
        assert len(keys) == len(set(keys))


def test_a_long_prompt_stalls_nobody(model):
    engine = Engine(model, 2, chunk=CHUNK, stall_seconds=0.0)
    talker = engine.submit(ask(4, max_tokens=200))
    engine.step()
    long = engine.submit(ask(10 * CHUNK, seed=1))
    for number in range(10):
        handed = engine.step()
        assert len(of(handed, talker.number)) == 1, "the running row missed a step"
        assert engine.stats().tokens_read == 4 + (number + 1) * CHUNK, "prompts go a piece a step"
    assert len(of(handed, long.number)) == 1 and long.prefill_seconds > 0
    patient = Engine(model, 2, chunk=CHUNK, stall_seconds=60.0)
    patient.submit(ask(4, max_tokens=200))
    patient.step()
    patient.submit(ask(10 * CHUNK, seed=1))
    assert len(patient.step()) == 2, "with time enough the whole prompt fits between two steps"


def test_a_short_prompt_is_not_behind_a_long_one(model):
    engine = Engine(model, 2, chunk=CHUNK, stall_seconds=0.0)
    engine.submit(ask(50 * CHUNK))
    engine.step()
    short = engine.submit(ask(CHUNK, seed=1, max_tokens=3))
    steps = 0
    while not short.done:
        engine.step()
        steps += 1
    assert steps <= 6 and engine.stats().reading == 1


def test_priorities_go_first_then_who_came_first(model):
    engine = Engine(model, 1, chunk=CHUNK)
    engine.submit(ask(3, max_tokens=2))
    engine.step()
    tickets = [engine.submit(ask(3, max_tokens=2), priority=p) for p in (0, 5, -1, 5)]
    order = [index for index, _, _ in ends(run(engine))]
    assert order == [0, *(tickets[n].number for n in (1, 3, 0, 2))]
    assert all(t.queue_seconds is not None and t.queue_seconds > 0 for t in tickets)


# Choices.


@pytest.mark.parametrize("slots", [3, 4, 8])
def test_choices_are_forks_of_one_reading(model, slots):
    engine = Engine(model, slots, chunk=CHUNK)
    others = [engine.submit(ask(6, seed=50 + n, max_tokens=9)) for n in range(2)]
    forked = engine.submit(ask(20, seed=7), n=3)
    events = run(engine)
    assert engine.stats().tokens_read == 20 + 12, "the prompt was read once"
    assert forked.seeds == (7, 8, 9) and forked.cached_tokens == 0
    for choice in range(3):
        single = Request(
            context=Context().then(ids(20, 7)),
            params=SamplingParams(seed=7 + choice, max_tokens=12),
        )
        assert plain(of(events, forked.number), choice) == alone(model, single)
    for ticket in others:
        assert plain(of(events, ticket.number)) == alone(model, ticket.request)
    assert engine.stats().kept == 0 and zero_slots(engine)


def test_fresh_seeds_of_choices_differ_and_repeat_the_answer(model):
    engine = Engine(model, 3, chunk=CHUNK)
    ticket = engine.submit(
        Request(context=Context().then([4]), params=SamplingParams(max_tokens=9)), n=3
    )
    events = run(engine)
    answers = [plain(events, choice) for choice in range(3)]
    assert len(set(ticket.seeds)) == 3 and answers[0] != answers[1] != answers[2]
    for choice in range(3):
        again = Request(
            context=Context().then([4]),
            params=SamplingParams(max_tokens=9, seed=ticket.seeds[choice]),
        )
        assert alone(model, again) == answers[choice]


def test_a_choice_may_end_at_its_first_token_or_be_cancelled_alone(model):
    first = alone(model, ask(20, seed=7, max_tokens=1))[0][0]
    engine = Engine(model, 3, chunk=CHUNK)
    ticket = engine.submit(ask(20, seed=7, stop_ids=frozenset({first})), n=3, keep_state=True)
    engine.cancel(ticket, 2)  # before the prompt was read
    while engine.stats().running < 1:
        engine.step()
    engine.step()
    engine.cancel(ticket, 1)
    run(engine)
    assert ticket.finish_reasons == ["stop", "cancelled", "cancelled"]
    assert [int(c.state.pos) if c.state else None for c in ticket.contexts] == [20, 21, None]
    assert ticket.contexts[0].pending == (first,)
    assert ticket.contexts[2].pending == tuple(ids(20, 7))
    assert ticket.done and zero_slots(engine) and engine.stats().kept == 0
    with pytest.raises(ValueError, match="choices 0 to 2"):
        engine.cancel(ticket, 3)


def test_a_prompt_whose_every_choice_was_cancelled_is_not_read_on(model):
    engine = Engine(model, 3, chunk=CHUNK, stall_seconds=0.0)
    ticket = engine.submit(ask(80), n=2)
    engine.step()
    engine.cancel(ticket, 0)
    assert not ticket.done and engine.stats().reading == 1
    engine.cancel(ticket, 1)
    assert ticket.done and run(engine) == [] and engine.stats().tokens_read == CHUNK
    assert engine.stats().kept == 0


# Cancelling, deadlines, pauses.


def test_cancelled_anywhere_the_others_do_not_notice(model):
    engine = Engine(model, 2, chunk=CHUNK, stall_seconds=0.0)
    running = engine.submit(ask(3, max_tokens=50))
    engine.step()
    reading = engine.submit(ask(30, seed=1))
    engine.step()
    waiting = engine.submit(ask(5, seed=2))
    stays = engine.submit(ask(11, seed=3))
    for ticket in (waiting, reading, running):
        engine.cancel(ticket)
        assert ticket.done and ticket.finish_reasons == ["cancelled"]
        engine.cancel(ticket)  # nothing happens
    assert plain(of(run(engine), stays.number)) == alone(model, stays.request)
    assert waiting.queue_seconds is None and engine.stats().waiting == 0 and zero_slots(engine)


def test_the_state_of_whatever_was_cut_short_goes_on_to_the_same_end(model):
    whole = alone(model, ask(30, seed=3, max_tokens=10, temperature=0))
    for steps in range(7):
        engine = Engine(model, 1, chunk=CHUNK, stall_seconds=0.0)
        ticket = engine.submit(ask(30, seed=3, max_tokens=10, temperature=0), keep_state=True)
        said = [e.id for _ in range(steps) for e in engine.step() if not isinstance(e, End)]
        engine.cancel(ticket)
        rest = ask(
            ids=ticket.context.pending,
            state=ticket.context.state,
            temperature=0,
            max_tokens=10 - len(said),
        )
        assert said == [i for i, _ in whole[: len(said)]] and len(said) == max(0, steps - 3)
        assert [i for i, _ in alone(model, rest)] == [i for i, _ in whole[len(said) :]]
        assert (
            ticket.context.state is None
            if steps == 0
            else int(ticket.context.state.pos) == ticket.context.read
        )


def test_a_kept_state_has_read_all_but_the_last_token(model):
    engine = Engine(model, 2, chunk=CHUNK)
    ticket = engine.submit(ask(9, seed=2), keep_state=True)
    plainly = engine.submit(ask(9, seed=2))
    answer = [i for i, _ in plain(of(run(engine), 0))]
    assert ticket.context.pending == (answer[-1],) and plainly.context is None
    with torch.no_grad():
        _, state = model.trunk(torch.tensor([[*ids(9, 2), *answer[:-1]]]))
    assert torch.equal(ticket.context.state.pos, state.pos)
    for own, other in zip(tensors(ticket.context.state)[1:], tensors(state)[1:], strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-4)


def test_deadlines_end_requests_wherever_they_are(model, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    engine = Engine(model, 2, chunk=CHUNK, stall_seconds=0.0, kept=2)
    tickets = [
        engine.submit(ask(3, max_tokens=90), deadline=5.0, keep_state=True),
        engine.submit(ask(400, seed=1), deadline=6.0),
        engine.submit(ask(4, seed=2), deadline=7.0),
        engine.submit(ask(4, seed=3)),
    ]
    engine.step()
    engine.pause(tickets[1])
    engine.step()  # the third is reading now
    engine.pause(tickets[2])
    now[0] += 4.9
    assert not ends(engine.step())
    now[0] += 3
    assert ends(engine.step()) == [(0, 0, "deadline"), (1, 0, "deadline"), (2, 0, "deadline")]
    assert tickets[0].context.state is not None and engine.stats().kept == 0
    assert plain(of(run(engine), 3))[-3:] == alone(model, tickets[3].request)[-3:]


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


# Refusals.


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


# Trouble.


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


def test_states_of_requests_are_left_as_they_were(model):
    with torch.no_grad():
        _, state = model.trunk(torch.tensor([ids(11)]))
    before = state.clone()
    engine = Engine(model, 2, chunk=CHUNK)
    for n in range(3):
        engine.submit(ask(ids=[5, 6, 7], state=state, seed=n), n=2, keep_state=True)
    run(engine)
    assert same(state, before)


def test_wrong_chunk_for_a_cache_is_refused():
    class Cache:
        every = 48

    with pytest.raises(ValueError, match="chunk=64 and the cache's every=48 do not fit"):
        Engine(make_model(), 1, chunk=64, prefix_cache=Cache())
