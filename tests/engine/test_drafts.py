"""Drafts never change an answer: ids, log-probabilities and states are the same, to the bit."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from griffin.engine import Context, End, Engine, Event, PrefixCache, Request, Ticket
from griffin.engine.draft_runner import DraftRunner
from griffin.model import Griffin
from griffin.ops import native
from griffin.quant import FORMATS
from griffin.sampling import SamplingParams
from tests.support.drafting import MOST, Thirds, Told, packed
from tests.support.toy_engine import CHUNK, CONFIG, V, ids, make_model, run, same, zero_slots

needs_native = pytest.mark.skipif(not native.built(), reason="the native kernels are not built")
Answer = list[Event | End]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def drawn(draw: random.Random, number: int) -> tuple[Request, dict[str, Any]]:
    """Return a request of every kind, and what happens to it on its way."""
    fields: dict[str, Any] = {
        "temperature": draw.choice([0.0, 0.7, 1.0]),
        "seed": draw.randrange(1000),
        "max_tokens": draw.randint(1, 30),
        "top_p": draw.choice([1.0, 0.9]),
        "min_p": draw.choice([0.0, 0.05]),
        "top_k": draw.choice([0, 0, 10]),
        "repetition_penalty": draw.choice([1.0, 1.0, 1.3]),
        "presence_penalty": draw.choice([0.0, 0.5]),
        "frequency_penalty": draw.choice([0.0, 0.3]),
        "logit_bias": draw.choice([{}, {}, {3: 4.0, 40: -100.0}]),
        "suppress_ids": draw.choice([(), (), (5, 6)]),
        "logprobs": draw.choice([None, 3]),
        "stop_ids": tuple(draw.sample(range(V), draw.choice([0, 0, 2]))),
    }
    fields["min_tokens"] = draw.choice([0, 0, draw.randint(0, fields["max_tokens"])])
    constraint = None
    if draw.random() < 0.3:
        ends = draw.randint(1, 25)
        constraint = lambda: Thirds(ends)  # noqa: E731
    context = Context().then(ids(draw.randint(1, 20), draw.randrange(1000)))
    request = Request(context=context, params=SamplingParams(**fields), constraint=constraint)
    # A sink cancels where a stop string would, or sets aside for a while; or the time is up, which
    # ends all choices at once, and how far others are then is not the same with and without drafts.
    happens = {"n": draw.choice([1, 1, 1, 2, 3])}
    if draw.random() < 0.5:
        what = draw.choice(["cancel", "pause", "deadline"])
        happens[what] = draw.randint(1, 12)
        happens["n"] = 1 if what == "deadline" else happens["n"]
    return request, happens


def answered(
    model: Griffin,
    asked: list[tuple[Request, dict[str, Any]]],
    slots: int,
    draft: int,
    runner: DraftRunner | None = None,
) -> tuple[list[dict[int, Answer]], list[Ticket], tuple[int, int]]:
    """Return the events of each choice of each request, the tickets, and what was counted."""
    engine = Engine(model, slots, chunk=CHUNK, kept=40)
    if runner is not None:
        engine._core.runner = runner
    found: list[dict[int, Answer]] = [{} for _ in asked]
    tickets: list[Ticket] = []
    for number, (request, happens) in enumerate(asked):

        def sink(event: Event | End, number: int = number, happens: Any = happens) -> None:
            mine = found[number].setdefault(event.choice, [])
            mine.append(event)
            if event.choice == 0 and len(mine) == happens.get("cancel"):
                engine.cancel(tickets[number], 0)
            if event.choice == 0 and len(mine) == happens.get("pause"):
                engine.pause(tickets[number])
                engine.resume(tickets[number])
            if event.choice == 0 and len(mine) == happens.get("deadline"):
                tickets[number].deadline = -math.inf

        params = request.params.replace(draft=draft)
        own = Request(context=request.context, params=params, constraint=request.constraint)
        n = min(happens["n"], slots)
        tickets.append(engine.submit(own, n=n, sink=sink, keep_state=True))
    run(engine)
    assert zero_slots(engine)
    stats = engine.stats()
    return found, tickets, (stats.tokens_read, stats.tokens_generated)


def check(model: Griffin, seed: int) -> set[tuple[int, int]]:
    """Hold answers with drafts against those without; return (drafts, right ones) of the calls."""
    draw = random.Random(seed)
    slots = draw.randint(1, 8)
    asked = [drawn(draw, number) for number in range(draw.randint(1, 8))]
    plain, before, counts = answered(model, asked, slots, 0)
    truth = [
        {n: [e.id for e in mine if isinstance(e, Event)] for n, mine in each.items()}
        for each in plain
    ]
    runner = Told(model, truth, seed)
    told, after, counted = answered(model, asked, slots, MOST, runner)
    assert counted == counts
    for number in range(len(asked)):
        assert told[number] == plain[number]
        assert after[number].finish_reasons == before[number].finish_reasons
        for one, other in zip(after[number].contexts, before[number].contexts, strict=True):
            assert (one is None) == (other is None)
            if one is None or other is None:
                continue
            assert one.pending == other.pending and one.tokens == other.tokens
            assert (one.state is None) == (other.state is None)
            assert one.state is None or other.state is None or same(one.state, other.state)
    return runner.met


MODELS = [
    *((format, dtype, False) for format in FORMATS for dtype in (torch.bfloat16, torch.float32)),
    ("int8", torch.bfloat16, True),
]


@needs_native
@pytest.mark.sweep
@pytest.mark.parametrize("first", range(7))
def test_a_thousand_random_cases(first: int) -> None:
    met: set[tuple[int, int]] = set()
    for seed in range(first, 1000, 7):
        met |= check(packed(*MODELS[seed // 7 % len(MODELS)]), seed)
    # Every number of drafts, and of these every number that was right.
    assert met >= {(k, right) for k in range(MOST + 1) for right in range(k + 1)}


@needs_native
def test_what_is_cached_of_a_drafted_answer_is_the_same() -> None:
    """The next turn goes on from the answer's state, which the prefix cache kept."""
    found = []
    for draft in (0, MOST):
        model = packed("int8")
        cache = PrefixCache("toy", CONFIG, model.dtype, max_bytes=10 << 20, every=CHUNK)
        engine = Engine(model, 1, chunk=CHUNK, prefix_cache=cache)
        text = ids(6, 1) * 3
        for turn in range(3):
            params = SamplingParams(temperature=0, max_tokens=20 + turn, draft=draft)
            ticket = engine.submit(Request(context=Context().then(text), params=params))
            events = [event for event in run(engine) if isinstance(event, Event)]
            text = [*text, *(event.id for event in events), *ids(3, turn)]
            found.append((ticket.cached_tokens, [(e.id, e.logprob) for e in events]))
            assert draft == 0 or ticket.drafted > 0
    assert found[:3] == found[3:] and found[1][0] == 18 + 20 - 1


def test_a_model_that_is_not_packed_may_be_asked_for_drafts() -> None:
    """In float64 little is left of what products round otherwise in company."""
    model = make_model().double()
    text = ids(6, 1) * 3
    for temperature in (0.0, 1.0):
        answers = []
        for draft in (0, 4):
            engine = Engine(model, 2, chunk=CHUNK)
            params = SamplingParams(temperature=temperature, seed=1, max_tokens=30, draft=draft)
            engine.submit(Request(context=Context().then(text), params=params))
            answers.append([e.id for e in run(engine) if isinstance(e, Event)])
        assert answers[0] == answers[1]


@needs_native
def test_drafts_save_calls_where_a_text_repeats_itself() -> None:
    """Greedy answers of a random model soon go in circles; the prediction is the answer itself."""
    model = packed("int8")
    steps = {}
    for draft in (0, 7, None):
        engine = Engine(model, 1, chunk=CHUNK)
        params = SamplingParams(temperature=0.0, max_tokens=200, draft=draft)
        ticket = engine.submit(Request(context=Context().then(ids(9)), params=params))
        answer = [e.id for e in run(engine) if isinstance(e, Event)]
        steps[draft] = engine.stats().steps
        assert ticket.accepted <= ticket.drafted and (draft != 0 or not ticket.drafted)
        assert engine.stats().tokens_generated == len(answer) == 200
        assert steps[draft] == 199 - ticket.accepted
    told = tuple(answer)
    assert steps[0] == 199 and steps[7] < 120
    engine = Engine(model, 1, chunk=CHUNK)
    params = SamplingParams(temperature=0.0, max_tokens=200, draft=7)
    engine.submit(Request(context=Context().then(ids(9)), params=params, prediction=told))
    assert [e.id for e in run(engine) if isinstance(e, Event)] == list(told)
    assert engine.stats().steps < 40


@needs_native
def test_every_call_tells_what_it_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = list[int]()
    monkeypatch.setattr(
        "griffin.engine.draft_runner.note", lambda model, tokens, seconds: noted.append(tokens)
    )
    for draft in (0, 3):
        engine = Engine(packed("int8"), 2, chunk=CHUNK)
        params = SamplingParams(temperature=0.0, max_tokens=60, draft=draft)
        for _ in range(2):
            engine.submit(Request(context=Context().then(ids(9)), params=params))
        run(engine)
        assert len(noted) == engine.stats().steps and min(noted) >= 1
        assert (max(noted) <= 2) == (draft == 0)
        noted.clear()
