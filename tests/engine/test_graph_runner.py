"""The graph runner against the model, with recorded operations instead of CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

import pytest
import torch

from griffin.engine import Context, End, Engine, Event, Refused, Request, Ticket
from griffin.engine.flight import StepMemory
from griffin.engine.graphs import Graphs, NoGraphs, bucket_of, buckets
from tests.engine.test_constraint import Turns
from tests.support.recorded_graphs import RecordedGraphs
from tests.support.toy_engine import CHUNK, CONFIG, ask, make_model, plain, run

SLOTS = 5
MODEL = make_model()


class Watched(RecordedGraphs):
    """Recorded graphs that see to it that nothing changes behind the rows that run."""

    def __init__(self) -> None:
        super().__init__()
        self.engine: Engine | None = None
        self.behind = 0

    def capture(self, call: Callable[[], None]) -> Callable[[], None]:
        replay = super().capture(call)

        def watched() -> None:
            assert self.engine is not None
            core: Any = self.engine._core
            live = int(core.runner.memory.live)
            tensors = core.batch.slots._tensors
            before = [t[live:].clone() for t in tensors]
            replay()
            for old, t in zip(before, tensors, strict=True):
                assert torch.equal(old, t[live:])
            self.behind += any(bool(old.any()) for old in before)

        return watched


def engine_of(graphs: Graphs | None, slots: int = SLOTS, **fields: Any) -> Engine:
    engine = Engine(MODEL, slots, chunk=CHUNK, graphs=graphs or False, **fields)
    if isinstance(graphs, Watched):
        graphs.engine = engine
    return engine


def test_buckets():
    assert buckets(1) == [1] and buckets(5) == [1, 2, 4, 5]
    assert buckets(300) == [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 300]
    assert buckets(600)[-3:] == [384, 512, 600] and bucket_of(17, buckets(300)) == 24


@pytest.mark.parametrize("kind", ["recurrent", "attention"])
def test_a_model_of_one_kind_of_block_is_stepped(kind):
    """There are no states of the other kind to lie behind one another."""
    model = make_model(CONFIG.replace(block_types=(kind,) * 2))
    asked = [ask(5, 0, 6, temperature=0.0), ask(9, 1, 4, top_p=0.8)]
    found = list[Any]()
    for graphs in (NoGraphs(), False):
        engine = Engine(model, 2, chunk=CHUNK, graphs=graphs)
        tickets = [engine.submit(request) for request in asked]
        run(engine)
        found.append([[id for id, _ in plain(ticket.events(0))] for ticket in tickets])
    assert found[0] == found[1] and all(found[0])


def some_request(random: Random, number: int) -> Request:
    """Return a request of a random kind, most of which the device can choose for alone."""
    fields: dict[str, Any] = {"temperature": random.choice([0.0, 0.8, 1.3])}
    kind = random.randrange(14)
    fields |= (
        {"top_k": 5},
        {"top_p": 0.7},
        {"min_p": 0.1},
        {"repetition_penalty": 1.3, "presence_penalty": 0.4},
        {"frequency_penalty": 0.9},
        {"logit_bias": {3: 2.5, 9: -4.0}},
        {"suppress_ids": (1, 2, 5)},
        {"allowed_ids": tuple(range(4, 40))},
        {"min_tokens": 3},
        {"logprobs": 3},
        {"stop": ("never",)},
        {},
        {"constraint": Turns, "suppress_ids": (5, 10)},
        {"constraint": partial(Turns, 9, random.choice(["", "allowed", "nothing", "accept"]))},
    )[kind]
    stop_ids = frozenset(random.sample(range(64), 6)) if random.random() < 0.6 else frozenset()
    return ask(random.randint(1, 20), number, random.randint(3, 24), stop_ids=stop_ids, **fields)


def reference(request: Request, n: int, cache: dict) -> list[list[Event | End]]:
    """Return what a request gets, step by step, without graphs and in no company."""
    if id(request) not in cache:
        engine = Engine(MODEL, n, chunk=CHUNK)
        engine.submit(request, n=n)
        events = run(engine)
        cache[id(request)] = [[e for e in events if e.choice == c] for c in range(n)]
    return cache[id(request)]


def expect_state(context: Context, request: Request, chosen: list[int]) -> None:
    """A state that was kept has read the prompt and all that was chosen but the last token."""
    prompt = list(request.context.pending)
    assert context.state is not None and context.pending == tuple(chosen[-1:])
    with torch.no_grad():
        _, state = MODEL.trunk(torch.tensor([prompt + chosen[:-1]]))
    assert torch.equal(context.state.pos, state.pos)
    for one, other in zip(context.state.layers, state.layers, strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_random_rows_get_what_they_get_without_graphs(steps):
    """Admits, ends, forks, pauses, cancels and changes of the bucket."""
    random = Random(7)
    graphs = Watched()
    engine = engine_of(graphs, kept=SLOTS, max_waiting=200)
    asked: list[tuple[Ticket, Request, int, list[Event | End]]] = []
    paused: list[Ticket] = []
    seen: set[int] = set()
    while engine._core.runner.steps < steps or engine.stats().busy or engine.stats().waiting:
        more = engine._core.runner.steps < steps and engine.stats().waiting < 50
        if more and random.random() < 0.35:
            request, n = some_request(random, len(asked)), random.choice([1, 1, 1, 2])
            events: list[Event | End] = []
            ticket = engine.submit(request, n=n, sink=events.append, keep_state=n == 1)
            asked.append((ticket, request, n, events))
        live = [ticket for ticket, *_ in asked if not ticket.done and not ticket.paused]
        if live and random.random() < 0.08:
            engine.cancel(random.choice(live))
        if live and random.random() < 0.1:
            with suppress(Refused):
                engine.pause(ticket := random.choice(live))
                paused.append(ticket)
        if paused and random.random() < 0.3:
            engine.resume(paused.pop(0))
        engine.step()
        seen.add(len(engine._core.batch.running))
    for ticket in paused:
        engine.resume(ticket)
    while not all(ticket.done for ticket, *_ in asked):
        engine.step()
    assert graphs.replays >= steps and graphs.behind > 5 and seen >= set(range(SLOTS))
    cache: dict = {}
    states = 0
    for ticket, request, n, events in asked:
        for choice, whole in enumerate(reference(request, n, cache)):
            mine, expected = (
                [e for e in each if isinstance(e, Event) and e.choice == choice]
                for each in (events, whole)
            )
            for one, other in zip(mine, expected, strict=False):
                assert (one.id, one.finish_reason) == (other.id, other.finish_reason)
                assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
                assert [i for i, _ in one.alternatives] == [i for i, _ in other.alternatives]
            if ticket.finish_reasons[choice] != "cancelled":
                assert len(mine) == len(expected)
                assert ticket.finish_reasons[choice] == whole[-1].finish_reason
            context = ticket.contexts[choice]
            if context is not None and mine:
                expect_state(context, request, [e.id for e in mine])
                states += 1
    assert states > 5


def test_a_sink_that_cancels_gets_no_more_and_the_state_of_what_it_saw():
    engine = engine_of(RecordedGraphs())
    request = ask(7, 1, 30)
    events: list[Event | End] = []

    def sink(event: Event | End) -> None:
        events.append(event)
        if len(events) == 4:
            engine.cancel(ticket)

    ticket = engine.submit(request, sink=sink, keep_state=True)
    run(engine)
    assert len(events) == 5 and isinstance(events[-1], End)
    chosen = [e.id for e in events if isinstance(e, Event)]
    context = ticket.context
    assert context is not None
    expect_state(context, request, chosen)


def test_the_next_step_is_launched_before_the_last_is_looked_at():
    engine = engine_of(RecordedGraphs())
    engine.submit(ask(5, 0, 9))
    engine.submit(ask(5, 1, 9, stop=("x",)))
    engine.step()
    engine.step()
    runner: Any = engine._core.runner
    rows = [len(engine._core.batch.running), len(runner._flying.rows)]
    # The row that has stop strings waits until its token was looked at.
    assert rows == [2, 1]
    run(engine)
    assert runner._flying is None or not engine._core.batch.running


def test_a_constraint_goes_up_as_bits_and_nobody_waits_for_it(monkeypatch):
    monkeypatch.setattr(StepMemory, "host_copy", None)  # no logits cross
    engine = engine_of(RecordedGraphs())
    engine.submit(ask(5, 0, 20))
    held = [ask(5, n, 20, constraint=Turns) for n in (1, 2)]
    for request in held:
        engine.submit(request)
    counts = [0, 0, 0]
    while engine.stats().running < 3:
        engine.step()
    for _ in range(8):
        for event in engine.step():
            counts[event.index] += 1
    assert counts == [8, 4, 4]
    events = run(engine)
    assert len(events) and engine._core.runner.steps < 40
    for request in held:
        chosen = [id for id, _ in plain(reference(request, 1, {})[0])]
        assert all(id % 5 == place % 5 for place, id in enumerate(chosen))


def test_a_row_without_numbers_ends_alone():
    engine = engine_of(NoGraphs())
    bad, good = engine.submit(ask(5, 0, 12)), engine.submit(ask(5, 1, 12))
    for _ in range(4):
        engine.step()
    row = next(r for r in engine._core.batch.running if r.ticket is bad)
    slot = engine._core.batch.slot(row)
    engine._core.batch.slots.view(slot).layers[0][1].fill_(torch.nan)
    run(engine)
    assert bad.finish_reasons == ["error"] and good.finish_reasons == ["length"]
    (*_, end) = bad.events(0)
    assert isinstance(end, End) and isinstance(end.error, FloatingPointError)
    # As long as both ran: to the bit what it would have been. (Torch's products, which stand for
    # the kernels here, depend on the number of rows.)
    other = engine_of(NoGraphs())
    same = [other.submit(ask(5, n, 12)) for n in range(2)]
    run(other)
    mine, expected = (plain(ticket.events(0)) for ticket in (good, same[1]))
    assert mine[:5] == expected[:5] and [i for i, _ in mine] == [i for i, _ in expected]


def test_capture_waits_for_nothing_and_says_how_far_it_is():
    told_of: list[tuple[int, int]] = []
    graphs = RecordedGraphs()

    def capturing(done: int, of: int) -> None:
        told_of.append((done, of))

    engine = Engine(MODEL, SLOTS, chunk=CHUNK, graphs=graphs, capturing=capturing)
    assert told_of == [(n + 1, 4) for n in range(4)]
    # As many operations for one row as for all.
    assert len(graphs.captured) == 4 and len(set(graphs.captured)) == 1
    runner: Any = engine._core.runner
    assert runner.nbytes > 0
