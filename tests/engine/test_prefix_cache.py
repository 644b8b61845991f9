"""The prefix cache finds what an oracle finds, gives states to the bit, and never exceeds its
bound."""

from __future__ import annotations

from array import array

import pytest
import torch

from griffin.engine import prefix_cache
from griffin.engine.prefix_cache import PrefixCache
from griffin.engine.prefix_tree import BLOCK, CHECKPOINT, NODE, Tree
from griffin.model import GriffinConfig, State
from tests.support.closeness import assert_states_equal
from tests.support.prefix_audit import (
    EVERY,
    FAKE,
    PLENTY,
    audit,
    checkpoints,
    make_cache,
    prompts,
    read,
    serve,
)
from tests.support.toy_models import GRIFFIN


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("every", "count"),
    [(1, 150), (4, 2_000), pytest.param(4, 10_000, marks=pytest.mark.slow), (16, 1_000)],
)
def test_finds_what_an_oracle_finds(every: int, count: int) -> None:
    """Hit lengths and reasons equal those found by comparing with everything that was put."""
    cache = make_cache(every=every)
    put: set[bytes] = set()
    begun: set[bytes] = set()
    for number, (ids, ends) in enumerate(prompts(count, longest=32)):
        data = array("i", ids).tobytes()
        longest = next((n for n in range(len(ids) - 1, 0, -1) if data[: 4 * n] in put), 0)
        common = next((n for n in range(len(ids), 0, -1) if data[: 4 * n] in begun), 0)
        hit = serve(cache, ids, ends)
        assert hit.tokens == longest
        assert longest >= min(common, len(ids) - 1) // every * every
        if longest == len(ids) - 1:
            assert hit.reason == "whole prompt but its last token"
        elif common == 0:
            assert hit.reason == "nothing known"
        elif common == len(ids):
            assert hit.reason.startswith(f"all {common} tokens known")
        else:
            further = any(
                data[: 4 * common] + bytes([t, 0, 0, 0]) in begun for t in range(FAKE.vocab_size)
            )
            expected = "diverges after {} tokens" if further else "nothing known beyond {} tokens"
            assert hit.reason == expected.format(common)
        stops = (*range(every, len(ids), every), *ends, len(ids))
        # What was not read cannot be put.
        put.update(data[: 4 * n] for n in stops if n > hit.tokens)
        begun.update(data[: 4 * n] for n in range(1, len(ids) + 1))
        if number == 100:
            audit(cache)
    audit(cache)
    assert len(checkpoints(cache)) == len(put)
    assert cache.counts.evicted == 0


@pytest.mark.sweep
@pytest.mark.parametrize("max_bytes", [0, 3_000, 20_000, 150_000, 600_000])
@pytest.mark.parametrize("every", [4, 16])
def test_never_more_than_the_bound(
    max_bytes: int, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever must go, bytes are within the bound at every step, and what is found is right to the
    bit."""
    room = max_bytes - 2 * (max_bytes // 128)

    class Watched(Tree):
        held = 0
        nbytes = property(lambda self: self.held, lambda self, value: self.grow(value))

        def grow(self, value: int) -> None:
            assert 0 <= value <= room
            self.held = value

    monkeypatch.setattr(prefix_cache, "Tree", Watched)
    cache = make_cache(max_bytes, every)
    for number, (ids, ends) in enumerate(prompts(400, seed=max_bytes)):
        serve(cache, ids, ends, namespace=str(number % 3 // 2))
        if number % 50 == 0:
            audit(cache)
    audit(cache)
    assert (cache.counts.evicted > 100) == (max_bytes >= 20_000)
    assert cache.counts.hits > 50 or max_bytes < 150_000


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("kinds", "window"),
    [
        (("recurrent",), 10),
        (("attention",), 10),
        (("recurrent", "attention"), 3),
        (("attention",), 1),
    ],
)
def test_other_shapes(kinds: tuple, window: int) -> None:
    """No attention, no recurrence, and windows smaller than a block."""
    config = FAKE.replace(block_types=kinds, attention_window_size=window)
    for max_bytes, hits in ((PLENTY, 200), (60_000, 20)):
        cache = make_cache(max_bytes, config=config)
        for ids, ends in prompts(250, seed=window):
            serve(cache, ids, ends)
        audit(cache)
        assert cache.counts.hits > hits
    assert cache.counts.evicted


def test_keys_and_values_are_copied_once() -> None:
    """A put copies the new block alone; earlier ones come from the ring only when they are gone."""
    ids = [n % 7 for n in range(40)]
    cache, sizes = make_cache(), []
    for stop, state in zip(range(4, 44, 4), read(ids, range(4, 44, 4)), strict=True):
        before = cache.nbytes
        cache.put(ids[:stop], state)
        sizes.append(cache.nbytes - before)
    root = NODE + 2 * 112 + 16  # and the first ids hashed, beside
    # A block of 16 bytes a token, a recurrent part of 16.
    step = NODE + CHECKPOINT + BLOCK + 4 * 16 + 16
    assert sizes[0] == step + root
    assert sizes[1:] == [step + 16 + 112] * 9
    assert cache.counts.blocks == 10
    before = cache.nbytes
    cache.put(ids[:20], read(ids, [20])[0])
    assert cache.nbytes == before and cache.counts.checkpoints == 10

    other = make_cache()
    other.put(ids, read(ids, [40])[0])  # alone: the window's ten positions, of three blocks
    assert other.counts.blocks == 3
    assert sum(block.span.nbytes for c in checkpoints(other) for block in c.blocks) == 10 * 16
    # Needs positions 26 to 30 too; the block 28 to 32 from its start.
    other.put(ids[:36], read(ids, [36])[0])
    assert other.counts.blocks == 4
    audit(other)
    assert_states_equal(other.find([*ids[:36], 9]).state, read(ids, [36])[0])
    assert_states_equal(other.find([*ids, 9]).state, read(ids, [40])[0])


def test_tails_use_the_blocks_of_what_goes_on() -> None:
    ids = [1, 2, 3, 4, 5, 6, 1, 2]
    for order in ([6, 5, 8, 7], [8, 7, 6, 5], [5, 7, 6, 8]):
        cache = make_cache()
        for stop in order:
            cache.put(ids[:stop], read(ids, [stop])[0])
            audit(cache)
        assert cache.counts.checkpoints == 4
        assert cache.counts.blocks == 2, "one of the first four tokens, one that three tails share"
        for stop in order:
            assert_states_equal(cache.find([*ids[:stop], 0]).state, read(ids, [stop])[0])


def test_reasons() -> None:
    ids = [n % 7 for n in range(20)]
    cache = make_cache()
    cache.find(ids)
    assert cache.find(ids) == (0, None, "nothing known")
    serve(cache, ids)

    def told(*prompt: int, namespace: str = "") -> tuple[int, str]:
        found = cache.find(prompt, namespace)
        return found[0], found[2]

    assert told(*ids, 3) == (20, "whole prompt but its last token")
    assert told(*ids) == (16, "all 20 tokens known, the last checkpoint before the end is after 16")
    assert told(*ids, 3, 4) == (20, "nothing known beyond 20 tokens")
    assert told(*ids[:11], 6, 6, 6) == (8, "diverges after 11 tokens")
    assert told(*ids[:12], 6, 6, 6) == (12, "diverges after 12 tokens")
    assert told(6, 6) == (0, "nothing known")
    assert told(ids[0], 6, 6) == (0, "diverges after 1 tokens")
    assert told(0) == (0, "whole prompt but its last token")
    assert told(*ids, namespace="other") == (0, "nothing known")


def test_namespaces_share_nothing() -> None:
    ids = [n % 7 for n in range(20)]
    cache = make_cache()
    serve(cache, ids, namespace="a")
    alone = cache.nbytes
    counts = cache.counts
    for namespace in ("b", "", "aa", "\udc80"):
        assert cache.find(ids, namespace).tokens == 0
        assert serve(cache, ids, namespace=namespace).tokens == 0
    assert cache.counts.blocks == 5 * counts.blocks
    assert cache.nbytes > 4.5 * alone
    audit(cache)
    assert cache.find(ids, "a").tokens == 16
    # A fingerprint that ends where a namespace begins is another one.
    assert (
        make_cache()._address(ids, "x")[1]
        != PrefixCache("fakex", FAKE, torch.float32, max_bytes=1, every=EVERY)._address(ids, "")[1]
    )


def test_bad_input_is_refused_and_changes_nothing() -> None:
    ids = [1, 2, 3, 4, 5]
    state = read(ids, [5])[0]
    cache = make_cache()
    with pytest.raises(ValueError, match="max_bytes must be 0"):
        make_cache(-1)
    with pytest.raises(ValueError, match="every must be at least 1"):
        make_cache(every=0)
    with pytest.raises(ValueError, match="prompt is empty"):
        cache.find([])
    for bad in ([1.5], [1 << 31], ["a"]):
        with pytest.raises(ValueError, match="whole numbers of 32 bits"):
            cache.find(bad)
    with pytest.raises(ValueError, match="has read 5 tokens of its document, and 4 ids were given"):
        cache.put(ids[:4], state)
    with pytest.raises(ValueError, match="one row is kept, not of 2"):
        cache.put(ids, state.select([0, 0]))
    with pytest.raises(ValueError, match="is not of this cache's model"):
        cache.put(ids, State.zeros(GRIFFIN))
    cache.put([], State.zeros(FAKE))
    assert cache.nbytes == 0 or cache.counts.checkpoints == 0
    cache.put(ids, state)
    audit(cache)


def test_a_failure_in_the_middle_leaves_the_cache_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make_cache()
    ids = [n % 7 for n in range(20)]
    serve(cache, ids)
    longer = [*ids, 1, 2, 3, 4, 5]

    def fail(*_: object) -> None:
        raise MemoryError

    for part in ("cut_span", "cut_recurrent"):
        with monkeypatch.context() as patch:
            patch.setattr(prefix_cache, part, fail)
            with pytest.raises(MemoryError):
                cache.put(longer, read(longer, [25])[0])
        audit(cache)
    assert cache.counts.checkpoints == 5
    serve(cache, longer)
    audit(cache)


def test_a_cached_token_costs_at_most_16_kb_at_2b() -> None:
    """Measured at the full shape: 8,192 bytes of keys and values, 460,800 / 64 of checkpoint,
    bookkeeping."""
    config = GriffinConfig.preset("recurrentgemma-2b")
    cache = PrefixCache("2b", config, torch.bfloat16, max_bytes=1 << 30)
    state = State.zeros(config, 1, dtype=torch.bfloat16)
    ids = array("i", [n * 7 % 256_000 for n in range(2_432)])
    for stop in range(64, len(ids) + 1, 64):
        state.pos.fill_(stop)
        before = cache.nbytes
        cache.put(ids[:stop], state)
        assert cache.nbytes - before <= 64 * 16_000
    tensors = {}
    for checkpoint in checkpoints(cache):
        parts = [checkpoint.recurrent, *(block.span[2:] for block in checkpoint.blocks)]
        tensors |= {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for x in parts for t in x
        }
    cost, plain = cache.nbytes / len(ids), sum(tensors.values()) / len(ids)
    print(f"\n{cost:,.0f} bytes a cached token, of which tensors {plain:,.0f}")
    assert plain == 8_192 + 460_800 / 64
    assert plain < cost <= 16_000
    assert cache.counts.checkpoints == cache.counts.blocks == 38
