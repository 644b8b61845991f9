"""The engine a step at a time: every answer is the one the request gets alone, whatever happens
around it."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

import pytest
import torch

from griffin.engine import Context, End, Engine, Request
from griffin.engine.slots import tensors
from griffin.sampling import SamplingParams
from tests.support.toy_engine import (
    CHUNK,
    V,
    alone,
    ask,
    ends,
    ids,
    of,
    plain,
    run,
    same,
    zero_slots,
)


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


# Cancelling, deadlines.


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


def test_states_of_requests_are_left_as_they_were(model):
    with torch.no_grad():
        _, state = model.trunk(torch.tensor([ids(11)]))
    before = state.clone()
    engine = Engine(model, 2, chunk=CHUNK)
    for n in range(3):
        engine.submit(ask(ids=[5, 6, 7], state=state, seed=n), n=2, keep_state=True)
    run(engine)
    assert same(state, before)


def test_ends_that_are_kept_back_and_ends_that_are_none(model):
    ends, more = frozenset(range(0, V, 2)), {"temperature": 1.0, "max_tokens": 30}
    cut = [ask(seed=n, stop_ids=ends, **more) for n in range(8)]
    lengths = [len(alone(model, request)) for request in cut]
    assert max(lengths) < 30 and min(lengths) < 5
    for n, request in enumerate(cut):
        late = alone(model, replace(request, params=request.params.replace(min_tokens=20)))
        assert len(late) > 20 and not ends.intersection(id for id, _ in late[:20])
        never = alone(model, replace(request, params=request.params.replace(ignore_eos=True)))
        assert never == alone(model, ask(seed=n, **more)) and len(never) == 30
        # Ids that the request itself names end it all the same.
        own = request.params.replace(ignore_eos=True, stop_ids=tuple(ends))
        assert alone(model, replace(request, params=own)) == alone(model, request)


def test_progress_is_told_after_each_piece_and_its_error_is_the_requests(model):
    told: list[int] = []
    engine = Engine(model, 2, chunk=CHUNK)
    engine.submit(replace(ask(3 * CHUNK - 2), progress=told.append))
    run(engine)
    assert told == [CHUNK, 2 * CHUNK, 3 * CHUNK - 2]

    def broken(_read: int) -> None:
        raise RuntimeError("no ear")

    ticket = engine.submit(replace(ask(20), progress=broken))
    other = engine.submit(ask(20))
    (end,) = [event for event in run(engine) if isinstance(event, End)]
    assert str(end.error) == "no ear" and ticket.done and other.finish_reasons == ["length"]
