"""The exact prefix cache: a new prompt starts from the longest beginning that was read before.

Checkpoints, and the blocks of keys and values that they share, lie in a tree (prefix_tree.py). This
file turns ids into addresses there, cuts states into what is new, keeps the bound, and chooses what
goes first. docs/prefix_cache.md explains the whole.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Sequence
from functools import partial
from hashlib import blake2b
from typing import NamedTuple

import torch

from griffin.engine.crossing import restore, to_keep
from griffin.engine.device_part import STATES, DevicePart
from griffin.engine.passage import Waypoint
from griffin.engine.pieces import (
    RecurrentPart,
    Span,
    cut_recurrent,
    cut_span,
    recurrent_bytes,
    span_bytes,
    window,
)
from griffin.engine.prefix_tree import (
    BLOCK,
    CHECKPOINT,
    ID,
    NODE,
    Node,
    PrefixCheckpoint,
    Tree,
    chain,
)
from griffin.model import GriffinConfig, State, StateShape

EVERY = 64  # tokens of a block
LASTING = 8.0  # the most turnovers of the cache that a checkpoint outlives its last use
GHOSTS = 4096  # evicted checkpoints that are remembered, so that a miss can be explained
GHOST = 512  # bytes of each


class Hit(NamedTuple):
    """What is known of a prompt.

    tokens: how many of its first tokens need not be read.
    state:  the state after them, one row, on the model's device; nobody changes it. None if there
            are none.
    reason: why there are not more, in a few words.
    """

    tokens: int
    state: State | None
    reason: str


class Counts(NamedTuple):
    """What a prefix cache holds and has done."""

    checkpoints: int  # states that a prompt can start from
    blocks: int  # stored runs of keys and values
    finds: int  # prompts looked up
    hits: int  # of which so many began with something known
    tokens_reused: int
    evicted: int  # checkpoints that had to go


class PrefixCache:
    """States of known token sequences, in bounded memory. Ids only; to be used from one thread.

    model_fingerprint: names the weights; a part of every address.
    config, dtype:     the model's.
    max_bytes:         what tensors and bookkeeping may take together, of the host's memory wherever
                       the model lies; never exceeded. 0 keeps nothing.
    every:             tokens of a block. Callers put a checkpoint at every multiple of it.
    ends:              and wherever else a later prompt may go on: where a prompt or an answer ends.
    device:            where the model lies.
    on_device:         how many of the states found last stay there, besides, if it is a GPU.
    Entries of one namespace, and of one adapter, are invisible to all others, and share nothing
    with them but the bound.
    """

    def __init__(
        self,
        model_fingerprint: str,
        config: GriffinConfig,
        dtype: torch.dtype,
        *,
        max_bytes: int,
        every: int = EVERY,
        ends: bool = True,
        device: torch.device | str = "cpu",
        on_device: int = STATES,
    ) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must be 0 (keep nothing) or more, not {max_bytes}")
        if every < 1:
            raise ValueError(f"every must be at least 1 token, not {every}")
        self.config, self.dtype = config, dtype
        self.max_bytes, self.every, self.ends = max_bytes, every, ends
        self._fingerprint = model_fingerprint
        self._part = DevicePart(device, on_device)
        self._own = CHECKPOINT + recurrent_bytes(config, dtype)
        self._token = span_bytes(config, dtype)
        # Bytes a token costs on average.
        self._usual = self._token + (self._own + NODE + BLOCK) / every
        self._state_shape = StateShape.of(config, dtype)
        self._state_bytes = State.zeros(config, 1, dtype=dtype, device="meta").nbytes
        self._tree = Tree(every)
        # A small part is set apart for what explains misses and spares hashing; the rest is for
        # states.
        self._aside = max_bytes // 128
        self._room = max_bytes - 2 * self._aside
        # Whole block's key -> tail of the checkpoint evicted last there.
        self._ghosts: dict[bytes, bytes] = {}
        self._trail: tuple[bytes, list[bytes]] = b"", [b""]  # the sequence that was hashed last
        # A heap; entries of an old score are void.
        self._order: list[tuple[float, int, PrefixCheckpoint]] = []
        self._pushes = 0
        self._time = 0  # bytes ever added: the clock of recency
        self._finds = self._hits = self._reused = self._evicted = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, and an upper estimate of the objects around them."""
        return self._tree.nbytes + GHOST * len(self._ghosts) + _trail_bytes(*self._trail)

    @property
    def counts(self) -> Counts:
        """What is held, and what was found so far."""
        tree = self._tree
        return Counts(
            tree.checkpoints, tree.blocks, self._finds, self._hits, self._reused, self._evicted
        )

    def find(self, ids: Sequence[int], namespace: str = "", adapter: str = "") -> Hit:
        """Look up the longest known beginning of a prompt, at most all but its last token.

        The last token must be read in any case, to have something to go on from. adapter: the
        digest of what the model reads it with. Raises ValueError for an empty prompt, and for ids
        that are not whole numbers of 32 bits.
        """
        if not len(ids):
            raise ValueError("the prompt is empty; a model needs at least one token to go on from")
        data, keys = self._address(ids, namespace, adapter)
        deepest = self._tree.deepest(keys)
        found = self._tree.longest(deepest, data, len(ids) - 1)
        tokens = found.node.length if found else 0
        reason = self._reason(deepest, data, keys, tokens)
        self._finds += 1
        if found is None:
            return Hit(0, None, reason)
        self._hits += 1
        self._reused += tokens
        self._time += 2
        found.used = self._time  # before those on its way: of equals it stays the longest
        begins = found
        while (begins := self._tree.above(begins.node)) is not None:
            begins.used = self._time - 1
        spans = [block.span for block in found.blocks]
        whole = partial(restore, self.config, tokens, found.recurrent, spans, self.dtype)
        return Hit(tokens, self._part.state(found, whole), reason)

    def marks(self, begin: int, ids: Sequence[int], left: int) -> list[int]:
        """Return after how many of these ids, read from position `begin` on, callers put a state.

        At the ends of blocks, and at the prompt's, if that is kept and no more are left of it.
        """
        found = list(range(self.every - begin % self.every, len(ids) + 1, self.every))
        last = self.ends and left == len(ids) and found[-1:] != [left]
        return [*found, left] if last else found

    def put(
        self,
        ids: Sequence[int],
        state: State | Waypoint,
        namespace: str = "",
        adapter: str = "",
    ) -> None:
        """Keep the state, one row, that has read exactly `ids` as one document, with an adapter.

        state: as it lies; or on the way of a call, whose model is the cache's.
        Copies what is new: the recurrent part, and keys and values that no kept checkpoint of the
        same beginning has. What is known already is only marked as used. What is larger than the
        bound, or has read nothing, is not kept. Raises ValueError for a state of another model, or
        after another number of tokens.
        """
        self._check(ids, state)
        if not len(ids):
            return
        data, keys = self._address(ids, namespace, adapter)
        self._time += 1
        if (there := self._tree.at(data, keys)) is not None:
            there.used = self._time
            return
        # Its window's positions, block by block.
        needed = window(self.config, len(ids))
        grid = range(needed.start - needed.start % self.every, needed.stop, self.every)
        cuts = [
            (max(start, needed.start), min(start + self.every, needed.stop))
            for start in (grid if needed else ())
        ]
        if self._own + NODE * (len(ids) // self.every + 2) + self._bytes(cuts) > self._room:
            return

        tree = self._tree
        known = [tree.stored(data, keys, *cut) for cut in cuts]
        missing = [
            cut
            for block, cut in zip(known, cuts, strict=True)
            if block is None or block.span.start > cut[0]
        ]
        anchor = tree.deepest(keys)
        new_nodes = -(-len(ids) // self.every) - (anchor.length // self.every if anchor else -1)
        more = self._own + NODE * new_nodes + self._bytes(missing)
        # What is there already must not go while room is made for the rest.
        held = [block for block in known if block is not None]
        for block in held:
            block.holders += 1
        if anchor is not None:
            anchor.users += 1
        try:
            if self._make_room(more):
                self._time += more
                spans = {stop: _span(state, start, stop, len(ids)) for start, stop in missing}
                recurrent = _recurrent(state)
                checkpoint = PrefixCheckpoint(tree.extend(data, keys), recurrent, self._time)
                tree.keep(checkpoint, known, spans)
                self._rank(checkpoint)
                if self._ghosts.get(keys[-1]) == data[len(data) - len(data) % (self.every * ID) :]:
                    del self._ghosts[keys[-1]]
        finally:
            for block in held:
                tree.release(block)
            if anchor is not None:
                tree.leave(anchor)

    def _bytes(self, cuts: Sequence[tuple[int, int]]) -> int:
        return sum(BLOCK + self._token * (stop - start) for start, stop in cuts)

    def _check(self, ids: Sequence[int], state: State | Waypoint) -> None:
        if isinstance(state, Waypoint):
            assert state.pos == len(ids), "a state on the way of a call has read other ids"
            return
        if state.pos.dim() and state.batch != 1:
            raise ValueError(
                f"only a state of one row is kept, not of {state.batch}; use state.select([row])"
            )
        if state.nbytes != self._state_bytes or len(state.layers) != self.config.num_layers:
            raise ValueError(
                f"a state of {len(state.layers)} layers and {state.nbytes} bytes is not of this"
                f" cache's model; its states have {self.config.num_layers} layers and"
                f" {self._state_bytes} bytes"
            )
        state.check(self._state_shape, batch=1)
        # Elsewhere nobody waits to look: who puts a state there has counted its tokens.
        if state.pos.is_cpu and (pos := int(state.pos[0])) != len(ids):
            raise ValueError(
                f"the state has read {pos} tokens of its document, and {len(ids)} ids were given;"
                " it is kept with all ids it has read, and no document may start among them"
            )

    def _address(
        self, ids: Sequence[int], namespace: str, adapter: str = ""
    ) -> tuple[bytes, list[bytes]]:
        """Return the ids as bytes and the key of every whole block's end, the namespace's root
        first.

        A prompt comes piece by piece, each time with all before it; what was hashed last is not
        hashed again.
        """
        try:
            data = array("i", ids).tobytes()
        except (TypeError, OverflowError) as error:
            raise ValueError(f"token ids are whole numbers of 32 bits: {error}") from error
        model = f"{len(self._fingerprint)}:{self._fingerprint}{len(adapter)}:{adapter}"
        origin = f"{model}{namespace}".encode("utf-8", "surrogatepass")
        root = blake2b(origin, digest_size=32).digest()
        size = self.every * ID
        before, keys = self._trail
        shared = min(len(data), len(before)) // size
        if keys[0] != root or data[: shared * size] != before[: shared * size]:
            before, keys, shared = b"", [root], 0
        keys = keys[: shared + 1]
        for start in range(shared * size, len(data) - size + 1, size):
            keys.append(chain(keys[-1], data[start : start + size]))
        if len(data) > len(before):
            fits = _trail_bytes(data, keys) <= self._aside
            self._trail = (data, keys) if fits else (b"", [b""])
        return data, keys

    def _reason(self, deepest: Node | None, data: bytes, keys: Sequence[bytes], tokens: int) -> str:
        length = len(data) // ID
        if tokens == length - 1:
            return "whole prompt but its last token"
        for depth in range(len(keys) - 1, tokens // self.every - 1, -1):
            tail = self._ghosts.get(keys[depth])
            if tail is not None and data.startswith(tail, depth * self.every * ID):
                lost = depth * self.every + len(tail) // ID
                if tokens < lost < length:
                    return f"evicted: {lost} tokens were known"
        known, goes_on = self._tree.known(deepest, data)
        if known == 0:
            return "nothing known"
        if known == length:
            return (
                f"all {length} tokens known, the last checkpoint before the end is after {tokens}"
            )
        return (
            f"diverges after {known} tokens" if goes_on else f"nothing known beyond {known} tokens"
        )

    def _make_room(self, more: int) -> bool:
        """Evict the least useful checkpoints until `more` bytes fit; return False if they never
        will."""
        while self._tree.nbytes + more > self._room:
            checkpoint = self._least_useful()
            if checkpoint is None:
                return False
            self._evict(checkpoint)
        return True

    def _evict(self, checkpoint: PrefixCheckpoint) -> None:
        node = checkpoint.node
        above = self._tree.above(node)
        self._tree.remove(checkpoint)
        self._part.forget(checkpoint)
        self._evicted += 1
        key = node.whole.key
        self._ghosts.pop(key, None)
        self._ghosts[key] = b"" if node.key else node.ids
        while len(self._ghosts) > min(GHOSTS, self._aside // GHOST):
            del self._ghosts[next(iter(self._ghosts))]
        # More blocks may be its own now, and it is worth less for so many bytes.
        if above is not None:
            self._rank(above)

    def _score(self, checkpoint: PrefixCheckpoint) -> float:
        """Return until when a checkpoint is worth its bytes, on the clock of bytes added.

        That is one turnover of the cache after its last use, if losing it costs as many tokens for
        each byte that is freed as cached tokens cost on average; longer in proportion if it costs
        more.
        """
        node = checkpoint.node
        above = self._tree.above(node)
        lost = node.length - (above.node.length if above is not None else 0)
        worth = lost * self._usual / checkpoint.freed
        return checkpoint.used + self._room * min(worth, LASTING)

    def _rank(self, checkpoint: PrefixCheckpoint) -> None:
        checkpoint.score = self._score(checkpoint)
        self._pushes += 1
        heapq.heappush(self._order, (checkpoint.score, self._pushes, checkpoint))
        if len(self._order) > 2 * self._tree.checkpoints + 64:
            self._order = [entry for entry in self._order if _stands(entry)]
            heapq.heapify(self._order)

    def _least_useful(self) -> PrefixCheckpoint | None:
        """Take the checkpoint of the lowest score off the heap.

        Use, and evictions nearby, raise scores without a push; so each is formed anew when its turn
        comes.
        """
        while self._order:
            entry = heapq.heappop(self._order)
            if _stands(entry):
                if self._score(entry[2]) <= entry[0]:
                    return entry[2]
                self._rank(entry[2])
        return None


def _span(state: State | Waypoint, start: int, stop: int, pos: int) -> Span:
    if isinstance(state, Waypoint):
        return state.span(start, stop)
    span = cut_span(state, start, stop, pos)
    k, v = to_keep(span.k, span.v)
    return span._replace(k=k, v=v)


def _recurrent(state: State | Waypoint) -> RecurrentPart:
    if isinstance(state, Waypoint):
        return state.recurrent()
    return RecurrentPart(*to_keep(*cut_recurrent(state)))


def _stands(entry: tuple[float, int, PrefixCheckpoint]) -> bool:
    score, _, checkpoint = entry
    return checkpoint.score == score and checkpoint.node.checkpoint is checkpoint


def _trail_bytes(data: bytes, keys: Sequence[bytes]) -> int:
    return len(data) + 112 * len(keys) if data else 0
