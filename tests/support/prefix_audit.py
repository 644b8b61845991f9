"""A model that is a function, so that thousands of prompts can be checked in seconds; an auditor of
caches.

A fake state's numbers are made from hashes of the tokens read: each can be made anew and compared
bit by bit.
"""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile

import torch

from griffin.engine.prefix_cache import Hit, PrefixCache
from griffin.engine.prefix_tree import BLOCK, CHECKPOINT, NODE, Node, PrefixCheckpoint
from griffin.model import GriffinConfig, State
from griffin.model.state import AttentionState, RecurrentState
from tests.support.closeness import assert_states_equal

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
                    RecurrentState(
                        words[stop, None, None, :2].clone(), words[stop, None, 2:].clone()
                    )
                )
            else:
                layers.append(AttentionState(*ring))
        states.append(State(torch.tensor([stop]), layers))
    return states


def make_cache(
    max_bytes: int = PLENTY, every: int = EVERY, config: GriffinConfig = FAKE
) -> PrefixCache:
    return PrefixCache("fake", config, torch.float32, max_bytes=max_bytes, every=every)


def serve(
    cache: PrefixCache, ids: Sequence[int], ends: Sequence[int] = (), namespace: str = ""
) -> Hit:
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
    """Yield prompts that begin like earlier ones and leave them anywhere, with further ends of
    turns."""
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


def checkpoints(cache: PrefixCache) -> list[PrefixCheckpoint]:
    nodes = [n for node in cache._tree._nodes.values() for n in (node, *node.tails.values())]
    return [node.checkpoint for node in nodes if node.checkpoint is not None]


def path(checkpoint: PrefixCheckpoint) -> bytes:
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
        # A run that a longer one begins with has no keys and values of its own, but those of such a
        # one; when that is evicted, the run may keep them.
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


def kept_in(checkpoint: PrefixCheckpoint, ids: Sequence[int]) -> bool:
    return array("i", ids).tobytes().startswith(path(checkpoint))


def kept(cache: PrefixCache, ids: Sequence[int]) -> list[int]:
    """Return the lengths of the checkpoints that a conversation begins with."""
    return sorted(c.node.length for c in checkpoints(cache) if kept_in(c, ids))
