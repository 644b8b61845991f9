"""What the prefix cache lets go when it is full, and in which order."""

from __future__ import annotations

import random

from tests.support.prefix_audit import (
    audit,
    checkpoints,
    fill,
    kept,
    kept_in,
    make_cache,
    read,
    serve,
)


def test_an_eviction_is_told() -> None:
    """As long as it is remembered, and of the longest checkpoint that is gone."""
    cache = make_cache(max_bytes=300_000)
    first = fill(cache, 0, 18)
    seed = 1
    while kept(cache, first) == [4, 8, 12, 16, 18]:
        fill(cache, seed)
        seed += 1
    left = kept(cache, first)
    lost = max({4, 8, 12, 16} - set(left))
    hit = cache.find([*first[:lost], 6, 6, 6])
    assert hit.tokens == max(n for n in (0, *left) if n < lost)
    assert hit.reason == f"evicted: {lost} tokens were known"
    serve(cache, first)
    serve(cache, first[:lost])
    assert cache.find([*first[:lost], 6]).tokens == lost
    assert "evicted" not in cache.find([*first[:lost], 6, 6]).reason


def test_what_was_not_used_goes_first() -> None:
    cache = make_cache(max_bytes=300_000)
    first, second = fill(cache, 0), fill(cache, 1)
    seed = 2
    while kept(cache, second):
        cache.find([*first, 0])
        fill(cache, seed)
        seed += 1
    assert kept(cache, first) == [4, 8, 12, 16], "used all the time, and as old"
    assert kept(cache, fill(cache, seed)) == [4, 8, 12, 16]
    while kept(cache, first):
        seed += 1
        fill(cache, seed)
        assert seed < 100, "what is used no more goes too"


def test_what_leads_to_a_hit_counts_as_used() -> None:
    """The hit is used last, and everything on the way to it after all else: tails, and the first
    block."""
    cache = make_cache()
    ids, other = fill(cache, 0, 18), fill(cache, 1)
    serve(cache, [*ids[:6], 6, 6])
    serve(cache, ids[:10])
    assert cache.find([*ids, 0]).tokens == 18
    *way, hit = sorted(
        (c for c in checkpoints(cache) if kept_in(c, ids)), key=lambda c: c.node.length
    )
    assert [c.node.length for c in way] == [4, 8, 10, 12, 16]
    rest = [c.used for c in checkpoints(cache) if not kept_in(c, ids)]
    assert len(rest) == 4 + 1
    assert max(rest) < min(c.used for c in way) == max(c.used for c in way) < hit.used
    cache.find([*other, 0])
    assert min(c.used for c in checkpoints(cache) if kept_in(c, other)) > hit.used


def test_a_leaf_goes_before_its_trunk() -> None:
    """Of one conversation, all as recently used and as far apart, the end frees more and goes
    first."""
    cache = make_cache()
    ids = fill(cache, 0, 32)
    cache.find([*ids, 0])
    cache._order.clear()
    for checkpoint in checkpoints(cache):
        cache._rank(checkpoint)
    for expected in range(32, 20, -4):
        least = cache._least_useful()
        assert least is not None and least.node.length == expected
        cache._evict(least)
    audit(cache)


def test_what_is_cheap_to_read_again_goes_first() -> None:
    """A checkpoint one token after another spares little, and the one before then spares more."""
    cache = make_cache()
    ids = [1, 2, 3, 4, 5, 6, 1, 2, 3, 4]
    for stop in (6, 7, 10):
        cache.put(ids[:stop], read(ids, [stop])[0])
    least = cache._least_useful()
    assert least is not None and least.node.length == 7
    cache._evict(least)
    assert kept(cache, ids) == [6, 10]


def test_a_shared_beginning_outlives_what_follows_it() -> None:
    """Conversations come and go; the instructions they all begin with stay."""
    cache = make_cache(max_bytes=200_000)
    system = [1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5]
    rng = random.Random(3)
    for number in range(200):
        ids = [*system, *(rng.randrange(7) for _ in range(20))]
        hit = serve(cache, ids)
        assert number == 0 or hit.tokens >= 12
    assert cache.counts.evicted > 500


def test_a_conversation_longer_than_the_bound_is_thinned() -> None:
    """Both its ends that were reached last stay within reach; what is long past gets sparse."""
    cache = make_cache(max_bytes=250_000)
    rng = random.Random(5)
    ids: list[int] = []
    for turn in range(25):
        before = len(ids)
        ids += [rng.randrange(7) for _ in range(16)]
        assert serve(cache, ids).tokens == before
        assert turn == 0 or {before, len(ids)} <= set(kept(cache, ids))
    lengths = kept(cache, ids)
    assert cache.counts.evicted and len(lengths) < 50
    assert sum(n > 200 for n in lengths) > sum(n <= 200 for n in lengths)
