"""The prefix cache's tree: sequences, their checkpoints, the blocks that these share.

A checkpoint is the state after some sequence. It owns its recurrent part and refers to blocks: the
keys and values of `every` tokens each, stored once for all checkpoints of the same beginning. A
node stands for a sequence and has one block more than its parent; its key is a hash chain over all
tokens before it. A sequence that ends inside a block ends in a tail, a short node. Every node leads
to a checkpoint; with the last one the nodes and blocks that it alone needed go too. How much may be
kept, and for how long, is decided elsewhere.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b

from griffin.engine.pieces import RecurrentPart, Span

ID = 4  # bytes of a token's id: sequences are kept as bytes

# Bytes of Python and torch objects beside the tensors' contents, rounded up from measurement.
NODE = 1024
BLOCK = 1536
CHECKPOINT = 3072


class Block:
    """Keys and values of a run of tokens, as far back as some checkpoint needed them."""

    __slots__ = ("holders", "owner", "span")

    def __init__(self, owner: Node, span: Span) -> None:
        self.owner = owner
        self.span = span
        self.holders = 0  # checkpoints that refer to it, and calls that are about to

    @property
    def nbytes(self) -> int:
        return BLOCK + self.span.nbytes


class Node:
    """A sequence: the parent's tokens, and `ids` after them; a whole block, or less in a tail.

    key: address of a whole block's end, b"" for a tail.
    """

    __slots__ = ("block", "checkpoint", "ids", "key", "length", "parent", "runs", "tails", "users")

    def __init__(self, key: bytes, parent: Node | None, ids: bytes) -> None:
        self.key = key
        self.parent = parent
        self.ids = ids
        self.length: int = (parent.length if parent else 0) + len(ids) // ID
        self.checkpoint: PrefixCheckpoint | None = None
        self.block: Block | None = None
        self.runs: list[bytes] = []  # ids of the nodes below, sorted: the most alike are neighbours
        self.tails: dict[bytes, Node] = {}
        self.users = 0  # nodes below, the checkpoint, and calls at work

    @property
    def whole(self) -> Node:
        """The node itself, or the last whole block before a tail."""
        return self if self.key or self.parent is None else self.parent

    def upwards(self) -> Iterator[Node]:
        """Yield the node, its parent, and so on up to the root."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent


class PrefixCheckpoint:
    """A state that can be started from.

    blocks: cover its window, oldest first.
    used:   when a prompt last began with its tokens, and
    score:  until when it is worth keeping, on the cache's clock.
    """

    __slots__ = ("blocks", "node", "recurrent", "score", "used")

    def __init__(self, node: Node, recurrent: RecurrentPart, used: int) -> None:
        self.node = node
        self.recurrent = recurrent
        self.blocks: list[Block] = []
        self.used = used
        self.score = 0.0

    @property
    def freed(self) -> int:
        """Bytes that its going would free, besides those of nodes."""
        own = CHECKPOINT + self.recurrent.nbytes
        return own + sum(block.nbytes for block in self.blocks if block.holders == 1)


class Tree:
    """Nodes by their keys, and the bytes of everything below them.

    every: tokens of a block.
    A sequence is given as `data`, the bytes of its ids, and `keys`, the addresses of its whole
    blocks' ends with that of its root before them.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.nbytes = 0
        self.checkpoints = 0
        self.blocks = 0
        self._size = every * ID
        self._nodes: dict[bytes, Node] = {}

    def deepest(self, keys: Sequence[bytes]) -> Node | None:
        """Return the last whole block of a sequence that is known; None if its root is not."""
        return next(
            (node for key in reversed(keys) if (node := self._nodes.get(key)) is not None), None
        )

    def at(self, data: bytes, keys: Sequence[bytes]) -> PrefixCheckpoint | None:
        """Return the checkpoint after exactly this sequence."""
        node = self._nodes.get(keys[-1])
        if node is not None and (tail := data[(len(keys) - 1) * self._size :]):
            node = node.tails.get(tail)
        return node.checkpoint if node is not None else None

    def longest(self, node: Node | None, data: bytes, limit: int) -> PrefixCheckpoint | None:
        """Return the longest checkpoint of at most `limit` tokens. node: the sequence's deepest."""
        while node is not None:
            start = node.length * ID
            if node.tails:
                for stop in range(min(limit * ID, start + self._size - ID), start, -ID):
                    if (tail := node.tails.get(data[start:stop])) is not None:
                        return tail.checkpoint
            if node.checkpoint is not None and node.length <= limit:
                return node.checkpoint
            node = node.parent
        return None

    def above(self, node: Node) -> PrefixCheckpoint | None:
        """Return the nearest checkpoint that a node's sequence begins with, besides its own."""
        while (parent := node.parent) is not None:
            if parent.tails:
                for stop in range(len(node.ids) - ID, 0, -ID):
                    if (tail := parent.tails.get(node.ids[:stop])) is not None:
                        return tail.checkpoint
            if parent.checkpoint is not None:
                return parent.checkpoint
            node = parent
        return None

    def known(self, node: Node | None, data: bytes) -> tuple[int, bool]:
        """Return how many tokens of a sequence are known, and whether a known one goes on there.

        node: the sequence's deepest.
        """
        if node is None:
            return 0, False
        rest = data[node.length * ID :]
        near = bisect_left(node.runs, rest)
        best = 0, False
        for run in node.runs[max(near - 1, 0) : near + 1]:  # one of the two goes along the farthest
            shared = _shared(run, rest)
            best = max(best, (shared, len(run) > shared * ID))
        return node.length + best[0], best[1]

    def stored(self, data: bytes, keys: Sequence[bytes], start: int, stop: int) -> Block | None:
        """Return the block of positions [start, stop) within one block of the grid.

        For a tail a longer block that begins with it will do, if it goes as far back. That of a
        whole block may begin later than asked.
        """
        depth = start // self.every
        if stop % self.every == 0:
            node = self._nodes.get(keys[depth + 1])
            return node.block if node is not None else None
        parent = self._nodes.get(keys[depth])
        if parent is None:
            return None
        tail = data[depth * self._size : stop * ID]
        for at in range(bisect_left(parent.runs, tail), len(parent.runs)):
            run = parent.runs[at]
            if not run.startswith(tail):
                break
            block = (parent.tails.get(run) or self._nodes[chain(parent.key, run)]).block
            if block is not None and block.span.start <= start:
                return block
        return None

    def extend(self, data: bytes, keys: Sequence[bytes]) -> Node:
        """Return the node of a sequence; missing ones on the way are added."""
        node = self.deepest(keys)
        if node is None:
            node = self._nodes[keys[0]] = Node(keys[0], None, b"")
            self.nbytes += NODE
        for start in range(node.length * ID, len(data), self._size):
            ids = data[start : start + self._size]
            if len(ids) == self._size:
                key = keys[start // self._size + 1]
                below = self._nodes[key] = Node(key, node, ids)
            else:
                below = node.tails[ids] = Node(b"", node, ids)
            insort(node.runs, ids)
            node.users += 1
            self.nbytes += NODE
            node = below
        return node

    def keep(
        self, checkpoint: PrefixCheckpoint, known: Sequence[Block | None], spans: Mapping[int, Span]
    ) -> None:
        """Attach a checkpoint to its node.

        known: what `stored` returned for each block of its window, oldest first.
        spans: new keys and values by where they stop, for blocks that were not known or began too
               late.
        """
        node = checkpoint.node
        node.checkpoint = checkpoint
        node.users += 1
        self.checkpoints += 1
        self.nbytes += CHECKPOINT + checkpoint.recurrent.nbytes
        for block, owner in zip(reversed(known), node.upwards(), strict=False):
            span = spans.get(owner.length)
            if block is None:
                assert span is not None
                block = Block(owner, span)
                self.nbytes += block.nbytes
                self.blocks += 1
            elif span is not None:
                self.nbytes += span.nbytes - block.span.nbytes
                block.span = span
            block.holders += 1
            owner.block = block
            checkpoint.blocks.insert(0, block)
            if span is not None:
                self._absorb(owner, block)

    def remove(self, checkpoint: PrefixCheckpoint) -> None:
        """Take a checkpoint off its node, with everything that it alone needed."""
        node = checkpoint.node
        node.checkpoint = None
        self.checkpoints -= 1
        self.nbytes -= CHECKPOINT + checkpoint.recurrent.nbytes
        for block in checkpoint.blocks:
            self.release(block)
        self.leave(node)

    def release(self, block: Block) -> None:
        """Give up one hold on a block; the last takes it away."""
        block.holders -= 1
        if not block.holders:
            self.nbytes -= block.nbytes
            self.blocks -= 1
            if block.owner.block is block:
                block.owner.block = None

    def leave(self, node: Node) -> None:
        """Give up one use of a node; the last takes it away, with those that led only there."""
        node.users -= 1
        while not node.users:
            self.nbytes -= NODE
            if node.key:
                del self._nodes[node.key]
            if (parent := node.parent) is None:
                return
            del parent.runs[bisect_left(parent.runs, node.ids)]
            parent.tails.pop(node.ids, None)
            parent.users -= 1
            node = parent

    def _absorb(self, node: Node, block: Block) -> None:
        """Let shorter tails that a node's ids begin with use its block instead of their own."""
        parent = node.parent
        if parent is None or not parent.tails:
            return
        for stop in range(ID, len(node.ids), ID):
            tail = parent.tails.get(node.ids[:stop])
            if tail is None or tail.checkpoint is None or (old := tail.block) is None:
                continue
            if old is not block and block.span.start <= old.span.start:
                tail.block = tail.checkpoint.blocks[-1] = block
                block.holders += 1
                self.release(old)


def chain(key: bytes, ids: bytes) -> bytes:
    """Return the address of the sequence that has `ids` after the one at `key`."""
    return blake2b(key + ids, digest_size=32).digest()


def _shared(a: bytes, b: bytes) -> int:
    """Return how many ids two runs have in common from their beginning."""
    shortest = min(len(a), len(b))
    return (
        next((at for at in range(0, shortest, ID) if a[at : at + ID] != b[at : at + ID]), shortest)
        // ID
    )
