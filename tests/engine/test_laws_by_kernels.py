"""The engine's laws where it steps by the kernels of a GPU: to the bit, in Triton's interpreter.

Prompts are read by kernels too, in bfloat16, as a GPU reads them.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from griffin.engine import Context, Engine, Request
from griffin.engine.graph_runner import GraphRunner
from griffin.engine.prefix_cache import PrefixCache
from griffin.model import Griffin
from griffin.ops.launching import record
from griffin.sampling import SamplingParams
from tests.support.toy_engine import CHUNK, CONFIG, alone, ask, ids, make_model, of, plain, run
from tests.support.triton import as_on_a_gpu, by_kernels, interpreted

__all__ = ["as_on_a_gpu", "by_kernels", "interpreted"]
pytestmark = pytest.mark.usefixtures("by_kernels")
# One block of each kind: the interpreter pays by the operation.
SMALL = CONFIG.replace(num_heads=1, num_gate_blocks=1, block_types=("recurrent", "attention"))
STEPS = 4


@pytest.fixture(scope="module")
def small() -> Griffin:
    return make_model(SMALL).bfloat16()


def engine_of(model: Griffin, slots: int, **fields: Any) -> Engine:
    engine = Engine(model, slots, chunk=CHUNK, **fields)
    assert isinstance(engine._core.runner, GraphRunner)
    return engine


def single(length: int, seed: int, begins: int) -> Request:
    """Return a request for one choice of what `ask(length, seed)` asks for."""
    params = SamplingParams(seed=begins, max_tokens=STEPS)
    return Request(context=Context().then(ids(length, seed)), params=params)


@pytest.mark.thorough
def test_a_row_has_the_bits_it_has_alone_in_every_bucket(small):
    """Others end before it and begin after it, and its window fills on the way."""
    ways: tuple[dict[str, Any], ...] = ({"temperature": 0.0}, {"top_p": 0.8}, {"top_k": 9})
    asked = [ask(6, 0, STEPS + 2, **ways[1]), ask(1, 1, 2, **ways[0]), ask(3, 2, 3, **ways[2])]
    engine = engine_of(small, 3, stall_seconds=10.0)
    with record() as launches:
        tickets = [engine.submit(request) for request in asked]
        events = run(engine)
    assert {"_local_attention", "_ring_attention", "_step", "_draw"} <= {e.name for e in launches}
    rows = {each.grid[0] for each in launches if each.name == "_draw"}
    assert rows == {1, 2, 3}, "the bucket did not change"
    for ticket in tickets:
        assert plain(of(events, ticket.number)) == alone(small, ticket.request)


@pytest.mark.thorough
def test_choices_of_a_fork_are_what_each_is_alone(small):
    engine = engine_of(small, 3)
    other = engine.submit(ask(2, 9, STEPS))
    forked = engine.submit(ask(CHUNK + 2, 7, STEPS), n=2)
    events = run(engine)
    for choice in range(2):
        mine = plain(of(events, forked.number), choice)
        assert mine == alone(small, single(CHUNK + 2, 7, 7 + choice))
    assert plain(of(events, other.number)) == alone(small, other.request)


@pytest.mark.thorough
@pytest.mark.parametrize("when", [1, 3])
def test_a_row_that_was_set_aside_goes_on_as_if_nothing_had_been(small, when):
    engine = engine_of(small, 2, kept=2)
    ticket, other = engine.submit(ask(6, 4, STEPS)), engine.submit(ask(2, 5, STEPS + 2))
    events = [event for _ in range(when) for event in engine.step()]
    engine.pause(ticket)
    for _ in range(2):
        new = engine.step()
        assert not of(new, ticket.number)
        events += new
    engine.resume(ticket)
    events += run(engine)
    for each in (ticket, other):
        assert plain(of(events, each.number)) == alone(small, each.request)


@pytest.mark.thorough
def test_what_the_cache_restores_goes_on_to_the_same_bits(small):
    cache = PrefixCache("toy", SMALL, torch.bfloat16, max_bytes=1 << 24, every=CHUNK)
    request = ask(2 * CHUNK + 3, 3, STEPS)
    expected = alone(small, request)
    found = []
    for _ in range(2):
        engine = engine_of(small, 2, prefix_cache=cache)
        tickets = [engine.submit(each) for each in (request, ask(1, 8, 2))]
        assert plain(of(run(engine), tickets[0].number)) == expected
        found.append(tickets[0].cached_tokens)
    assert found == [0, 2 * CHUNK]
