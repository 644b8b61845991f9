"""Texts that begin alike as a tree: every text is its path, and what is shared stands once."""

from __future__ import annotations

import random

import numpy as np
import pytest

from griffin.evaluate.branches import branches_of


def paths(texts, branch, begun=()):
    """Yield the ids on the way to each text's end, with its number."""
    ids = (*begun, *texts[branch.text][branch.begin : branch.end])
    for number in branch.ending:
        yield number, ids
    for child in branch.children:
        yield from paths(texts, child, ids)


def tree(texts, **more):
    return branches_of([np.array(ids, np.uint32) for ids in texts], **more)


@pytest.mark.parametrize("worth", [0, 1, 3, 8])
def test_every_text_is_a_path(worth):
    draw = random.Random(worth)
    for _ in range(100):
        texts = [
            tuple(draw.randrange(3) for _ in range(draw.randrange(9)))
            for _ in range(draw.randrange(1, 12))
        ]
        root = tree(texts, worth=worth)
        assert sorted(paths(texts, root)) == list(enumerate(texts))
        assert len(root) == 0
        for branch in root:
            if branch is not root:
                assert len(branch) > 0 or branch.ending
            ways = len(branch.children) + bool(branch.ending)
            if branch.children and branch is not root:
                assert ways > 1 and len(branch) * (ways - 1) >= worth


def test_what_is_shared_is_counted_once():
    begun = tuple(range(100))
    texts = [(*begun, 7, n) for n in range(5)] + [begun]
    assert tree(texts).tokens == 100 + 5 * 2  # one token is not worth a fork
    assert tree(texts, worth=1).tokens == 100 + 1 + 5
    assert tree([begun, begun]).tokens == 100
    assert tree([]).tokens == 0


def test_a_deep_tree_is_no_recursion():
    texts = [tuple(range(n)) for n in range(1, 3000)]
    assert tree(texts, worth=0).tokens == 2999
