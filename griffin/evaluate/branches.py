"""Texts that begin alike as a tree of what they share, so that each beginning is read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# Tokens that a fork has to spare. A call of the model reads all weights, however few its tokens
# are, and every row of it needs a copy of the state.
WORTH = 32

Ids = NDArray[np.uint32]


@dataclass(eq=False)
class TextBranch:
    """Tokens that several texts have in common after what their common beginnings are.

    text:       the number of a text that has them. begin, end: where in it.
    ending:     the numbers of the texts that end with it.
    children:   how the other texts go on.
    """

    text: int
    begin: int
    end: int
    ending: list[int] = field(default_factory=list)
    children: list[TextBranch] = field(default_factory=list)

    def __len__(self) -> int:
        return self.end - self.begin

    def __iter__(self) -> Iterator[TextBranch]:
        """Give this branch and all below it, each before its children."""
        waiting: list[TextBranch] = [self]
        while waiting:
            branch = waiting.pop()
            yield branch
            waiting += reversed(branch.children)

    @property
    def tokens(self) -> int:
        """How many tokens are read for this branch and all below it."""
        return sum(map(len, self))


def branches_of(
    texts: Sequence[Ids], worth: int = WORTH, *, first_apart: bool = False
) -> TextBranch:
    """Return the tree of texts. Its root holds no token.

    worth: a fork that spares fewer tokens than this is not made: its branches are read from where
           it begins, each for itself.
    first_apart: the first id, which all texts have in common, is a branch of its own, the only one
           below the root: another state than the one after it may then stand for it.
    """
    order = sorted(range(len(texts)), key=lambda number: texts[number].astype(">u4").tobytes())
    root = TextBranch(order[0] if order else 0, 0, 0)
    path, before = [root], np.empty(0, np.uint32)
    for number in order:
        ids = texts[number]
        shared, below = _common(before, ids), None
        while path[-1].end > shared:
            below = path.pop()
        above = path[-1]
        if above.end < shared:
            assert below is not None, "what is shared lies within the last text"
            fork = TextBranch(below.text, above.end, shared, children=[below])
            above.children[-1], below.begin = fork, shared
            path.append(fork)
            above = fork
        if len(ids) == above.end:
            above.ending.append(number)
        else:
            leaf = TextBranch(number, above.end, len(ids), [number])
            above.children.append(leaf)
            path.append(leaf)
        before = ids
    _join(root, worth)
    if first_apart and root.children:
        _set_apart(root)
    return root


def _common(one: Ids, other: Ids) -> int:
    """Return how many ids two texts begin with alike."""
    size = min(len(one), len(other))
    differ = np.flatnonzero(one[:size] != other[:size])
    return int(differ[0]) if len(differ) else size


def _join(root: TextBranch, worth: int) -> None:
    """Take the forks out that spare too little, those farthest from the root first."""
    for branch in reversed([*root]):
        kept = list[TextBranch]()
        for child in branch.children:
            ways = len(child.children) + bool(child.ending)
            if not child.children or len(child) * (ways - 1) >= worth:
                kept.append(child)
                continue
            if child.ending:
                kept.append(TextBranch(child.ending[0], child.begin, child.end, child.ending))
            for grandchild in child.children:
                grandchild.begin = child.begin
                kept.append(grandchild)
        branch.children = kept


def _set_apart(root: TextBranch) -> None:
    """Put a branch of one id, the first, between a root and what is below it."""
    first = TextBranch(root.children[0].text, 0, 1)
    for child in root.children:
        child.begin = 1
        if len(child):
            first.children.append(child)
        else:
            first.ending += child.ending
            first.children += child.children
    root.children = [first]
