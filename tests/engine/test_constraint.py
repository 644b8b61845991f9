"""Rows under constraints: each its own, and nobody else feels them."""

from __future__ import annotations

import pytest
import torch

from griffin.engine import End, Engine, Event, generate
from griffin.engine.graphs import NoGraphs
from griffin.engine.prefix_cache import PrefixCache
from griffin.sampling import ConstraintError
from tests.support.toy_engine import CHUNK, V, alone, ask, ids, plain, run


class Turns:
    """Allow ids of one remainder, then of the next: it must see each token once, in its order."""

    made = 0

    def __init__(self, last: int | None = None, trouble: str = "", at: int = 3) -> None:
        Turns.made += 1
        self.said: list[int] = []
        self.last, self.trouble, self.at = last, trouble, at

    def allowed(self) -> torch.Tensor:
        mask = torch.arange(V) % 5 == len(self.said) % 5
        if len(self.said) == self.at:
            if self.trouble == "allowed":
                raise RuntimeError("no mask")
            if self.trouble == "nothing":
                mask[:] = False
        return mask

    def accept(self, id: int) -> bool:
        if self.trouble == "accept" and len(self.said) == self.at:
            raise RuntimeError("no word")
        self.said.append(id)
        return len(self.said) == self.last


def fits(tokens: list[tuple[int, float]]) -> bool:
    return all(id % 5 == place % 5 for place, (id, _) in enumerate(tokens))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_in_company_as_alone(model, temperature):
    asked = [
        ask(4 + 9 * n, seed=n, temperature=temperature, constraint=Turns if n % 2 else None)
        for n in range(6)
    ]
    engine = Engine(model, 4, chunk=CHUNK)
    for request in asked:
        engine.submit(request)
    events = run(engine)
    for n, request in enumerate(asked):
        tokens = plain([e for e in events if e.index == n])
        assert tokens == alone(model, request) and len(tokens) == 12
        assert fits(tokens) or not n % 2


@pytest.mark.parametrize("slots", [3, 5])
def test_each_choice_has_its_own(model, slots):
    """Also where some of them wait for a slot."""
    engine = Engine(model, slots, chunk=CHUNK, kept=1)
    before = Turns.made
    engine.submit(ask(20, seed=3, max_tokens=40), n=1)
    engine.submit(ask(7, seed=1, constraint=Turns), n=3)
    events = [e for e in run(engine) if e.index == 1]
    assert Turns.made == before + 3
    for choice in range(3):
        tokens = plain(events, choice)
        request = ask(ids=ids(7, 1), seed=1 + choice, constraint=Turns)
        assert tokens == alone(model, request) and fits(tokens)


def test_a_pause_forgets_nothing(model):
    request = ask(9, seed=2, constraint=Turns)
    engine = Engine(model, 2, chunk=CHUNK)
    ticket = engine.submit(request)
    events = [event for _ in range(6) for event in engine.step()]
    assert 0 < len(events) < 12
    engine.pause(ticket)
    engine.step()
    engine.submit(ask(30, seed=5, max_tokens=3))
    run(engine)
    engine.resume(ticket)
    events += [e for e in run(engine) if e.index == 0]
    assert plain(events) == alone(model, request)


@pytest.mark.parametrize("max_tokens", [5, 20])
def test_an_answer_ends_with_its_constraint(model, max_tokens):
    (*_, last) = events = list(
        generate(model, [ask(6, max_tokens=max_tokens, constraint=lambda: Turns(last=5))])
    )
    assert len(events) == 5 and last.finish_reason == "stop"


def test_a_state_goes_on_behind_an_answer_that_ended(model):
    engine = Engine(model, 1, chunk=CHUNK)
    ticket = engine.submit(ask(6, constraint=lambda: Turns(last=4)), keep_state=True)
    tokens = [id for id, _ in plain(run(engine))]
    assert len(tokens) == 4 and ticket.context.pending == (tokens[-1],)
    assert int(ticket.context.state.pos[0]) == 6 + 3


@pytest.mark.parametrize(
    ("trouble", "error"),
    [("allowed", RuntimeError), ("accept", RuntimeError), ("nothing", ConstraintError)],
)
@pytest.mark.parametrize("at", [0, 3])
def test_trouble_stays_in_its_row(model, trouble, error, at):
    fine = ask(5, seed=1)
    engine = Engine(model, 3, chunk=CHUNK)
    engine.submit(fine)
    engine.submit(ask(5, seed=2, constraint=lambda: Turns(trouble=trouble, at=at)))
    events = run(engine)
    assert plain([e for e in events if e.index == 0]) == alone(model, fine)
    *before, end = [e for e in events if e.index == 1]
    assert isinstance(end, End) and end.finish_reason == "error" and isinstance(end.error, error)
    assert len(before) == at and engine.stats().busy == 0


@pytest.mark.parametrize("trouble", ["allowed", "accept", "nothing"])
@pytest.mark.parametrize("graphs", [False, NoGraphs()], ids=["calls", "graphs"])
def test_of_an_answer_that_broke_no_state_is_kept(model, trouble, graphs):
    """It has read the last token that was chosen, which a context leaves to be read: neither the
    caller nor the prefix cache may have it, and the error stays the constraint's."""
    cache = PrefixCache("toy", model.config, torch.float32, max_bytes=10 << 20, every=CHUNK)
    engine = Engine(model, 2, chunk=CHUNK, prefix_cache=cache, graphs=graphs)
    asked = ask(5, seed=2, constraint=lambda: Turns(trouble=trouble))
    ticket = engine.submit(asked, keep_state=True)
    *before, end = run(engine)
    assert len(before) == 3 and ticket.context is None
    assert isinstance(end, End) and "state" not in str(end.error)
    assert cache.counts.checkpoints == 1, "the prompt's end alone"
    again = engine.submit(
        ask(ids=[*ids(5, 2), *(e.id for e in before if isinstance(e, Event)), 1, 2])
    )
    run(engine)
    assert again.cached_tokens == 5


def test_trouble_in_one_choice_of_several(model):
    kinds = iter(["", "accept", ""])
    engine = Engine(model, 3, chunk=CHUNK)
    engine.submit(ask(5, seed=2, constraint=lambda: Turns(trouble=next(kinds))), n=3)
    ends = {e.choice: e.finish_reason for e in run(engine) if e.finish_reason}
    assert ends == {0: "length", 1: "error", 2: "length"}


def test_a_constraint_that_cannot_begin_ends_its_request_alone(model):
    def broken():
        raise RuntimeError("no constraint")

    fine = ask(5, seed=1)
    engine = Engine(model, 3, chunk=CHUNK)
    engine.submit(fine)
    engine.submit(ask(5, seed=2, constraint=broken), n=2)
    events = run(engine)
    assert plain([e for e in events if e.index == 0]) == alone(model, fine)
    assert [e.finish_reason for e in events if e.index == 1] == ["error", "error"]
    assert engine.stats().busy == 0
