"""Drafts never change an answer: ids, log-probabilities and states are the same, to the bit."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from griffin.engine import Context, End, Engine, Event, Request, Ticket
from griffin.engine.draft_runner import DraftRunner
from griffin.engine.drafter import Guess
from griffin.engine.row import Row
from griffin.model import Griffin
from griffin.ops import native
from griffin.quant import FORMATS, quantize_model
from griffin.sampling import SamplingParams
from tests.support.toy_engine import CHUNK, CONFIG, V, ids, make_model, run, same, zero_slots

MOST = CONFIG.attention_window_size - 1  # drafts, for a ring has to hold all tokens of a call
needs_native = pytest.mark.skipif(not native.built(), reason="the native kernels are not built")
Answer = list[Event | End]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@cache
def packed(format: str, dtype: torch.dtype = torch.bfloat16) -> Griffin:
    return quantize_model(make_model().to(dtype), format)


class Thirds:
    """A constraint with memory: after an id only those of the next class of three may come, of some
    only one, and some answers end early."""

    def __init__(self, ends: int) -> None:
        self._last, self._left = 0, ends

    def allowed(self) -> Tensor:
        mask = torch.arange(V) % 3 == (self._last + 1) % 3
        if forced := self.forced():
            mask = torch.arange(V) == forced[0]
        return mask

    def accept(self, id: int) -> bool:
        self._last, self._left = id, self._left - 1
        return self._left == 0

    def forced(self) -> Sequence[int]:
        return [self._last + 1] if self._last % 5 == 0 and self._last + 1 < V else []


class Told(DraftRunner):
    """Proposes what an answer without drafts said, right so many times and then wrong."""

    def __init__(self, model: Griffin, truth: list[dict[int, list[int]]], seed: int) -> None:
        super().__init__(model)
        self.truth, self.draw = truth, random.Random(seed)
        self.met: set[tuple[int, int]] = set()

    def _proposed(self, row: Row, most: int) -> Guess:
        known = self.truth[row.ticket.number].get(row.choice, [])[len(row.chosen) :]
        count = self.draw.randint(0, min(most, MOST))
        right = self.draw.randint(0, count)
        told = [*known[:right], *([(known[right] + 1) % V] if len(known) > right else [])]
        told += [self.draw.randrange(V) for _ in range(count - len(told))]
        return Guess(told[:count], 8)

    def _read_ahead(self, batch: Any, rows: Sequence[Row], drafts: Sequence[Guess]) -> None:
        super()._read_ahead(batch, rows, drafts)
        for row, draft in zip(rows, drafts, strict=True):
            known = self.truth[row.ticket.number].get(row.choice, [])[len(row.chosen) :]
            right = 0
            while right < min(len(draft.ids), len(known)) and draft.ids[right] == known[right]:
                right += 1
            self.met.add((len(draft.ids), right))


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
        "logprobs": draw.choice([None, 3]),
        "stop_ids": tuple(draw.sample(range(V), draw.choice([0, 0, 2]))),
    }
    constraint = None
    if draw.random() < 0.3:
        ends = draw.randint(1, 25)
        constraint = lambda: Thirds(ends)  # noqa: E731
    context = Context().then(ids(draw.randint(1, 20), draw.randrange(1000)))
    request = Request(context=context, params=SamplingParams(**fields), constraint=constraint)
    # A sink cancels where a stop string would, or sets aside for a while.
    happens = {"n": draw.choice([1, 1, 1, 2, 3])}
    if draw.random() < 0.4:
        happens[draw.choice(["cancel", "pause"])] = draw.randint(1, 12)
    return request, happens


def answered(
    model: Griffin,
    asked: list[tuple[Request, dict[str, Any]]],
    slots: int,
    draft: int,
    runner: DraftRunner | None = None,
) -> tuple[list[dict[int, Answer]], list[Ticket]]:
    """Return the events of each choice of each request, and the tickets."""
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

        params = request.params.replace(draft=draft)
        own = Request(context=request.context, params=params, constraint=request.constraint)
        n = min(happens["n"], slots)
        tickets.append(engine.submit(own, n=n, sink=sink, keep_state=True))
    run(engine)
    assert zero_slots(engine)
    return found, tickets


def check(model: Griffin, seed: int) -> set[tuple[int, int]]:
    """Hold answers with drafts against those without; return (drafts, right ones) of the calls."""
    draw = random.Random(seed)
    slots = draw.randint(1, 8)
    asked = [drawn(draw, number) for number in range(draw.randint(1, 8))]
    plain, before = answered(model, asked, slots, 0)
    truth = [
        {n: [e.id for e in mine if isinstance(e, Event)] for n, mine in each.items()}
        for each in plain
    ]
    runner = Told(model, truth, seed)
    told, after = answered(model, asked, slots, MOST, runner)
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


MODELS = [(format, dtype) for format in FORMATS for dtype in (torch.bfloat16, torch.float32)]


@needs_native
def test_a_hundred_random_cases() -> None:
    met: set[tuple[int, int]] = set()
    for seed in range(100):
        met |= check(packed(*MODELS[seed % len(MODELS)]), seed)
    # Every number of drafts, and of these every number that was right.
    assert met >= {(k, right) for k in range(MOST + 1) for right in range(k + 1)}


@needs_native
@pytest.mark.slow
def test_nine_hundred_more() -> None:
    for seed in range(100, 1000):
        check(packed(*MODELS[seed % len(MODELS)]), seed)


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
