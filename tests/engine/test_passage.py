"""One call that reads many blocks leaves in the prefix cache what a call a block would leave."""

from __future__ import annotations

import pytest
import torch

from griffin.engine import Engine
from griffin.engine.devices import default_chunk
from griffin.engine.passage import Passage
from griffin.engine.prefix_cache import PrefixCache
from griffin.model import Griffin, Marks, State
from tests.support.closeness import assert_states_equal
from tests.support.prefix_audit import checkpoints
from tests.support.stand_in_device import DEVICE, stand_in
from tests.support.toy_engine import CHUNK, CONFIG, ask, make_model, plain, run
from tests.support.toy_models import HAWK
from tests.support.toy_models import make_model as make_toy


@pytest.fixture
def within(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take states from inside of calls, as where the model lies on a GPU."""
    monkeypatch.setattr("griffin.engine.core.marks_within", lambda device: True)


def kept(model: Griffin, chunk: int, **fields) -> tuple[PrefixCache, list, int]:
    """Return the cache, the answer and the calls of an engine that reads one prompt."""
    cache = PrefixCache("toy", model.config, model.dtype, max_bytes=1 << 24, every=CHUNK)
    engine = Engine(model, 2, chunk=chunk, prefix_cache=cache)
    calls = []
    read = engine._core.runner.read
    engine._core.runner.read = lambda *given: calls.append(given) or read(*given)  # pyright: ignore
    engine.submit(ask(**fields))
    return cache, plain(run(engine)), len(calls)


@pytest.mark.parametrize("length", [5 * CHUNK + 3, 8 * CHUNK, 11 * CHUNK + 1])
def test_a_call_leaves_every_block(within: None, length: int) -> None:
    """Each beginning of a prompt, read eight blocks a call, is found as it is when each block has
    a call of its own: to the bit."""
    model = make_model()
    many, answer, calls = kept(model, CHUNK, length=length, seed=3, max_tokens=4)
    few, same, fewer = kept(model, 8 * CHUNK, length=length, seed=3, max_tokens=4)
    assert same == answer
    assert (calls, fewer) == (-(-length // CHUNK), -(-length // (8 * CHUNK)))
    assert few.counts[:2] == many.counts[:2]
    prompt = list(ask(length=length, seed=3).context.pending)
    for stop in [*range(CHUNK, length + 1, CHUNK), length]:
        expected, found = (cache.find([*prompt[:stop], 0]) for cache in (many, few))
        assert found.tokens == expected.tokens == stop
        assert found.state is not None and expected.state is not None
        assert_states_equal(found.state, expected.state)


def test_what_was_evicted_meanwhile_is_kept_again(within: None) -> None:
    """A window that reaches back before the call is cut from what the row held before it."""
    model = make_model()
    cache = PrefixCache("toy", CONFIG, torch.float32, max_bytes=1 << 24, every=CHUNK)
    _, state = model(torch.tensor([list(ask(length=2 * CHUNK, seed=3).context.pending)]))
    more = list(ask(length=2 * CHUNK, seed=4).context.pending)
    passage = Passage(state, 2 * CHUNK, [4, CHUNK, 2 * CHUNK])
    with torch.no_grad():
        model.trunk(torch.tensor([more]), state.clone(), donate=True, marks=passage.marks)
        for at in (4, CHUNK, 2 * CHUNK):
            ids = [*ask(length=2 * CHUNK, seed=3).context.pending, *more[:at]]
            _, expected = model.trunk(torch.tensor([more[:at]]), state)
            cache.put(ids, passage.at(at))
            found = cache.find([*ids, 0]).state
            assert found is not None
            assert_states_equal(found, expected)


def test_marks_of_a_model_without_attention() -> None:
    model, marks = make_toy(HAWK), Marks([1, 5, 9])
    ids = torch.randint(HAWK.vocab_size, (1, 11), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden, _ = model.trunk(ids, marks=marks)
        plain_hidden, _ = model.trunk(ids)
        assert torch.equal(hidden, plain_hidden)
        for row, at in enumerate(marks.at):
            _, state = model.trunk(ids[:, :at])
            for layer, got in zip(state.layers, marks.recurrent, strict=True):
                assert all(torch.equal(t[0], g[row]) for t, g in zip(layer, got, strict=True))


@pytest.mark.parametrize("at", [[0], [3, 3], [2, 1], [12]])
def test_marks_that_cannot_be(at: list[int]) -> None:
    model = make_toy(HAWK)
    with torch.no_grad(), pytest.raises(ValueError, match="each after 1 to 11 tokens and in order"):
        model.trunk(torch.zeros(1, 11, dtype=torch.int64), marks=Marks(at))


def test_marks_are_of_one_row_that_goes_on() -> None:
    model, ids = make_toy(HAWK), torch.zeros(2, 3, dtype=torch.int64)
    with torch.no_grad(), pytest.raises(ValueError, match="2 rows"):
        model.trunk(ids, marks=Marks([1]))
    with torch.no_grad(), pytest.raises(ValueError, match="a row that goes on"):
        model.trunk(ids[:1], State.zeros(HAWK), torch.arange(3)[None], marks=Marks([1]))


def test_a_gpu_reads_more_tokens_a_call() -> None:
    assert [default_chunk(torch.device(kind)) for kind in ("cpu", "cuda:1")] == [64, 4096]
    assert Engine(make_model(), 1).chunk == 64


def test_a_piece_is_waited_for_before_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []
    monkeypatch.setattr("griffin.engine.core.finish", waited.append)
    model = make_model()
    engine = Engine(model, 1, chunk=CHUNK)
    engine.submit(ask(length=3 * CHUNK))
    run(engine)
    assert waited == [model.device] * 3


def test_what_is_kept_of_another_device_lies_in_the_hosts_memory() -> None:
    """Nothing waits to look at the state, and each part goes home in one copy."""
    with stand_in() as watch:
        cache = PrefixCache("toy", CONFIG, torch.float32, max_bytes=1 << 24, every=4)
        state = State.zeros(CONFIG, 1, device=DEVICE)
        with watch.crossing():
            cache.put(range(9), state)
        spans = [(1, 4), (4, 8), (8, 9)]
        assert watch.crossed.total() == 2 + 2 * len(spans)
        (kept,) = checkpoints(cache)
        parts = [*kept.recurrent, *(t for b in kept.blocks for t in (b.span.k, b.span.v))]
        assert len(parts) == 8 and all(t.is_cpu for t in parts)


def test_states_that_were_found_last_stay_on_the_device() -> None:
    """What is found again there crosses no more; of more than there is room for, the last ones."""
    with stand_in() as watch:
        where = {"device": DEVICE, "on_device": 2}
        cache = PrefixCache("toy", CONFIG, torch.float32, max_bytes=1 << 24, every=4, **where)
        prompts = [range(n, n + 9) for n in (0, 20, 40)]

        def crossings(prompt: range) -> int:
            before = watch.crossed.total()
            with watch.crossing():
                state = cache.find(prompt).state
            assert state is not None and state.pos.device == DEVICE
            assert all(t.device == DEVICE for layer in state.layers for t in layer)
            return watch.crossed.total() - before

        with watch.crossing():
            for prompt in prompts:
                cache.put(prompt[:8], State.zeros(CONFIG, 1, device=DEVICE))
        whole = 4  # both of the recurrent part, keys and values
        assert [crossings(prompts[n]) for n in (0, 0, 1, 0, 1)] == [whole, 0, whole, 0, 0]
        assert [crossings(prompts[n]) for n in (2, 1, 0)] == [whole, 0, whole]
        each = State.zeros(CONFIG, 1, device=DEVICE)
        assert cache._part.nbytes == 2 * (each.nbytes + each.pos.nbytes)
        for checkpoint in list(checkpoints(cache)):
            cache._evict(checkpoint)
        assert cache._part.nbytes == 0
