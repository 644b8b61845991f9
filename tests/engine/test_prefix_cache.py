"""The prefix cache finds what an oracle finds, gives states to the bit, and never holds more than its bound.

Most tests use a model that is a function: its state's numbers are made from hashes of the tokens read, so
every state can be made anew and compared, and ten thousand prompts take seconds.
"""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile

import pytest
import torch

from griffin.engine import prefix_cache
from griffin.engine.prefix_cache import Hit, PrefixCache
from griffin.engine.prefix_tree import BLOCK, CHECKPOINT, NODE, Checkpoint, Node, Tree
from griffin.model import Griffin, GriffinConfig, State
from griffin.model.state import AttentionState, RecurrentState
from tests.conftest import GRIFFIN, make_model
from tests.laws.compare import assert_states_equal

FAKE = GriffinConfig(
    vocab_size=7,
    width=4,
    mlp_width=4,
    lru_width=2,
    num_heads=2,
    num_gate_blocks=1,
    block_types=("recurrent", "attention"),
    attention_window_size=10,
    conv_width=2,
    rope_fraction=0.0,
)
EVERY = 4
PLENTY = 1 << 40


def read(ids: Sequence[int], stops: Sequence[int], config: GriffinConfig = FAKE) -> list[State]:
    """Return what the fake model remembers after the first `stop` ids, for each of several stops.

    Every number depends on all the tokens up to its position.
    """
    hashes = [1]
    for token in ids:
        hashes.append((hashes[-1] * 6364136223846793005 + token + 1) % (1 << 61))
    words = torch.tensor(hashes).unsqueeze(1) >> torch.tensor([0, 15, 30, 45])
    words = (words & 0x7FFF).float()
    size = config.attention_window_size
    states = []
    for stop in stops:
        held = torch.arange(max(0, stop - size), stop)
        ring = torch.zeros(2, 1, size, 1, 2)
        ring[:, 0, held % size, 0] = words[held + 1].view(-1, 2, 2).transpose(0, 1)
        layers: list[RecurrentState | AttentionState] = []
        for kind in config.block_types:
            if kind == "recurrent":
                layers.append(
                    RecurrentState(words[stop, None, None, :2].clone(), words[stop, None, 2:].clone())
                )
            else:
                layers.append(AttentionState(*ring))
        states.append(State(torch.tensor([stop]), layers))
    return states


def make_cache(max_bytes: int = PLENTY, every: int = EVERY, config: GriffinConfig = FAKE) -> PrefixCache:
    return PrefixCache("fake", config, torch.float32, max_bytes=max_bytes, every=every)


def serve(cache: PrefixCache, ids: Sequence[int], ends: Sequence[int] = (), namespace: str = "") -> Hit:
    """Do with the cache what an engine does for a prompt; check the state it gives."""
    hit = cache.find(ids, namespace)
    if hit.state is not None:
        assert_states_equal(hit.state, read(ids, [hit.tokens], cache.config)[0])
    stops = sorted({*range(cache.every, len(ids), cache.every), *ends, len(ids)})
    stops = [stop for stop in stops if stop > hit.tokens]
    for stop, state in zip(stops, read(ids, stops, cache.config), strict=True):
        cache.put(ids[:stop], state, namespace)
        assert cache.nbytes <= cache.max_bytes
    return hit


def prompts(count: int, longest: int = 48, seed: int = 0) -> Iterator[tuple[list[int], list[int]]]:
    """Yield prompts that begin like earlier ones and leave them anywhere, with further ends of turns."""
    rng = random.Random(seed)
    pool: list[list[int]] = [[]]
    for _ in range(count):
        known = rng.choice(pool)
        kept = len(known) if rng.random() < 0.4 else rng.randint(0, len(known))
        new = [rng.randrange(FAKE.vocab_size) for _ in range(rng.randint(0, 14))]
        ids = (known[:kept] + new)[:longest] or [rng.randrange(FAKE.vocab_size)]
        if len(pool) < 300:
            pool.append(ids)
        else:
            pool[rng.randrange(300)] = ids
        yield ids, rng.sample(range(1, len(ids) + 1), k=min(rng.randint(0, 1), len(ids)))


def checkpoints(cache: PrefixCache) -> list[Checkpoint]:
    nodes = [n for node in cache._tree._nodes.values() for n in (node, *node.tails.values())]
    return [node.checkpoint for node in nodes if node.checkpoint is not None]


def path(checkpoint: Checkpoint) -> bytes:
    return b"".join(node.ids for node in reversed(list(checkpoint.node.upwards())))


def audit(cache: PrefixCache) -> None:
    """Count everything anew, and look for content that is stored twice or kept for nobody."""
    tree = cache._tree
    nodes = [n for node in tree._nodes.values() for n in (node, *node.tails.values())]
    held = checkpoints(cache)
    blocks = {id(block): block for checkpoint in held for block in checkpoint.blocks}
    total = NODE * len(nodes) + sum(CHECKPOINT + c.recurrent.nbytes for c in held)
    total += sum(BLOCK + block.span.nbytes for block in blocks.values())
    assert tree.nbytes == total <= cache.nbytes <= cache.max_bytes
    assert (tree.checkpoints, tree.blocks) == (len(held), len(blocks))
    families: dict[int, list[Node]] = {id(node): [] for node in nodes}
    for node in nodes:
        if node.parent is not None:
            families[id(node.parent)].append(node)
    for node in nodes:
        below = families[id(node)]
        assert node.users == len(below) + (node.checkpoint is not None) > 0
        assert node.runs == sorted(n.ids for n in below)
        assert node.block is None or id(node.block) in blocks
        # A run that a longer one begins with has no keys and values of its own, but those of such a one;
        # when that is evicted, the run may keep them.
        stored = [n for n in below if n.block is not None]
        stored.sort(key=lambda n: n.ids)
        for at, short in enumerate(stored):
            following = takewhile(lambda n, ids=short.ids: n.ids.startswith(ids), stored[at + 1 :])
            longer = [n.block for n in following]
            longer = [block for block in longer if block.span.start <= short.block.span.start]
            assert not longer or short.block in longer or cache.counts.evicted
    holders = Counter(id(block) for checkpoint in held for block in checkpoint.blocks)
    assert holders == {at: block.holders for at, block in blocks.items()}


def fill(cache: PrefixCache, seed: int, length: int = 16) -> list[int]:
    """Read a conversation that shares nothing with others, and return it."""
    rng = random.Random(seed)
    ids = [seed % 7, seed // 7 % 7, seed // 49, *(rng.randrange(7) for _ in range(length - 3))]
    serve(cache, ids)
    return ids


def kept_in(checkpoint: Checkpoint, ids: Sequence[int]) -> bool:
    return array("i", ids).tobytes().startswith(path(checkpoint))


def kept(cache: PrefixCache, ids: Sequence[int]) -> list[int]:
    """Return the lengths of the checkpoints that a conversation begins with."""
    return sorted(c.node.length for c in checkpoints(cache) if kept_in(c, ids))


@pytest.mark.parametrize(("every", "count"), [(1, 150), (4, 10_000), (16, 1_000)])
def test_finds_what_an_oracle_finds(every: int, count: int) -> None:
    """10,000 prompts: hit lengths and reasons equal those found by comparing with everything that was put."""
    cache = make_cache(every=every)
    put: set[bytes] = set()
    begun: set[bytes] = set()
    for number, (ids, ends) in enumerate(prompts(count)):
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
            further = any(data[: 4 * common] + bytes([t, 0, 0, 0]) in begun for t in range(FAKE.vocab_size))
            expected = "diverges after {} tokens" if further else "nothing known beyond {} tokens"
            assert hit.reason == expected.format(common)
        stops = (*range(every, len(ids), every), *ends, len(ids))
        put.update(data[: 4 * n] for n in stops if n > hit.tokens)  # what was not read cannot be put
        begun.update(data[: 4 * n] for n in range(1, len(ids) + 1))
        if number == 100:
            audit(cache)
    audit(cache)
    assert len(checkpoints(cache)) == len(put)
    assert cache.counts.evicted == 0


@pytest.mark.parametrize("max_bytes", [0, 3_000, 20_000, 150_000, 600_000])
@pytest.mark.parametrize("every", [4, 16])
def test_never_more_than_the_bound(max_bytes: int, every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever must go, bytes are within the bound at every step, and what is found is right to the bit."""
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


@pytest.mark.parametrize(
    ("kinds", "window"),
    [(("recurrent",), 10), (("attention",), 10), (("recurrent", "attention"), 3), (("attention",), 1)],
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
    step = NODE + CHECKPOINT + BLOCK + 4 * 16 + 16  # a block of 16 bytes a token, a recurrent part of 16
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
    other.put(ids[:36], read(ids, [36])[0])  # needs positions 26 to 30 too; the block 28 to 32 from its start
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
        return cache.find(prompt, namespace)[::2]

    assert told(*ids, 3) == (20, "whole prompt but its last token")
    assert told(*ids) == (16, "all 20 tokens known, the last checkpoint before the end is after 16")
    assert told(*ids, 3, 4) == (20, "nothing known beyond 20 tokens")
    assert told(*ids[:11], 6, 6, 6) == (8, "diverges after 11 tokens")
    assert told(*ids[:12], 6, 6, 6) == (12, "diverges after 12 tokens")
    assert told(6, 6) == (0, "nothing known")
    assert told(ids[0], 6, 6) == (0, "diverges after 1 tokens")
    assert told(0) == (0, "whole prompt but its last token")
    assert told(*ids, namespace="other") == (0, "nothing known")


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
    """The hit is used last, and everything on the way to it after all else: tails, and the first block."""
    cache = make_cache()
    ids, other = fill(cache, 0, 18), fill(cache, 1)
    serve(cache, [*ids[:6], 6, 6])
    serve(cache, ids[:10])
    assert cache.find([*ids, 0]).tokens == 18
    *way, hit = sorted((c for c in checkpoints(cache) if kept_in(c, ids)), key=lambda c: c.node.length)
    assert [c.node.length for c in way] == [4, 8, 10, 12, 16]
    rest = [c.used for c in checkpoints(cache) if not kept_in(c, ids)]
    assert len(rest) == 4 + 1
    assert max(rest) < min(c.used for c in way) == max(c.used for c in way) < hit.used
    cache.find([*other, 0])
    assert min(c.used for c in checkpoints(cache) if kept_in(c, other)) > hit.used


def test_a_leaf_goes_before_its_trunk() -> None:
    """Of one conversation, all as recently used and as far apart, the end frees more and goes first."""
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
    """Measured at the full shape: 8,192 bytes of keys and values, 460,800 / 64 of checkpoint, bookkeeping."""
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
        tensors |= {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for x in parts for t in x}
    cost, plain = cache.nbytes / len(ids), sum(tensors.values()) / len(ids)
    print(f"\n{cost:,.0f} bytes a cached token, of which tensors {plain:,.0f}")
    assert plain == 8_192 + 460_800 / 64
    assert plain < cost <= 16_000
    assert cache.counts.checkpoints == cache.counts.blocks == 38


TOY = GRIFFIN.replace(
    width=16,
    mlp_width=16,
    lru_width=16,
    num_heads=2,
    num_kv_heads=1,
    num_gate_blocks=2,
    rope_fraction=0.5,
    block_types=("recurrent", "attention", "recurrent"),
    attention_window_size=10,
    vocab_size=FAKE.vocab_size,
)


def answer(
    model: Griffin, ids: list[int], state: State | None, cuts: Sequence[int], tell: Callable
) -> tuple[torch.Tensor, list[int]]:
    """Read a prompt from where the state is, cut at `cuts`, and choose three tokens greedily.

    tell: called with ids and their state after each piece and at the end. Returns all logits and the ids.
    """
    done = 0 if state is None else int(state.pos)
    logits = []
    for stop in sorted({cut for cut in cuts if done < cut < len(ids)} | {len(ids)}):
        out, state = model(torch.tensor([ids[done:stop]]), state)
        done = stop
        tell(ids[:done], state)
    for _ in range(3):
        logits.append(out[0, -1])
        ids = [*ids, int(out[0, -1].argmax())]
        out, state = model(torch.tensor([ids[-1:]]), state)
    tell(ids, state)
    return torch.stack([*logits, out[0, -1]]), ids


def compare_on_and_off(count: int, chunk: int, max_bytes: int, seed: int) -> PrefixCache:
    """Answer prompts with the cache and without it at the same cuts, and compare all logits, bit for bit."""
    model = make_model(TOY, seed=seed)
    cache = PrefixCache("toy", TOY, torch.float32, max_bytes=max_bytes, every=EVERY)
    cuts_of: dict[tuple[int, ...], tuple[int, ...]] = {(): ()}  # how what is kept was read

    for ids, _ in prompts(count, seed=seed):
        hit = cache.find(ids)
        before = cuts_of[tuple(ids[: hit.tokens])] + (hit.tokens,)
        cuts = [*before, *range(chunk, len(ids), chunk)]

        def tell(read: list[int], state: State, before=before, prompt=ids) -> None:
            if len(read) % EVERY == 0 or len(read) >= len(prompt):
                held = cache.counts.checkpoints
                cache.put(read, state)
                if cache.counts.checkpoints > held or tuple(read) not in cuts_of:
                    own = range(before[-1] // chunk * chunk + chunk, min(len(read), len(prompt)), chunk)
                    singles = range(len(prompt), len(read)) if len(read) > len(prompt) else ()
                    cuts_of[tuple(read)] = (*before, *own, *singles)

        on, full = answer(model, ids, hit.state, cuts, tell)
        # The answers in what was known came token by token, and are read so again.
        off, same = answer(model, ids, None, cuts, lambda *_: None)
        assert torch.equal(on, off) and full == same, f"{hit.tokens} of {len(ids)} tokens reused"
        assert cache.nbytes <= max_bytes
    audit(cache)
    return cache


def test_on_equals_off() -> None:
    counts = compare_on_and_off(80, chunk=EVERY, max_bytes=PLENTY, seed=0).counts
    assert counts.hits > 50 and counts.evicted == 0


def test_on_equals_off_when_much_is_evicted() -> None:
    """Token by token, so that what is read anew has the same cuts whatever was evicted."""
    counts = compare_on_and_off(25, chunk=1, max_bytes=100_000, seed=1).counts
    assert counts.hits > 10 and counts.evicted > 50


@pytest.mark.slow
def test_on_equals_off_for_ten_thousand_prompts() -> None:
    counts = compare_on_and_off(10_000, chunk=EVERY, max_bytes=PLENTY, seed=2).counts
    print(f"\n{counts}")
    assert counts.hits > 9_000
