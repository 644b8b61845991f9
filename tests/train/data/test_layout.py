"""Which pieces go to which rows: best fit as the paper says it, and rows without a target."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from griffin.train.data.layout import fit
from griffin.train.data.rows import Packer
from griffin.train.data.store import TokenStore
from tests.train.data.test_rows import _store


def _one_by_one(sizes: np.ndarray, length: int) -> list[int]:
    """Best-fit decreasing as the paper has it, piece after piece: how full each row gets."""
    rows: list[int] = []
    for size in sorted(sizes.tolist(), reverse=True):
        having = [row for row in range(len(rows)) if rows[row] + size <= length]
        if having:
            rows[max(having, key=rows.__getitem__)] += size
        else:
            rows.append(size)
    return sorted(rows)


@pytest.mark.parametrize("seed", range(20))
def test_fit_is_best_fit_decreasing(seed: int) -> None:
    chance = np.random.default_rng(seed)
    length = int(chance.integers(1, 40))
    sizes = chance.integers(1, length + 1, size=chance.integers(1, 200))
    rows = fit(sizes, length)
    # Among rows that are equally full any will do: how full the rows get is the same.
    assert sorted(np.bincount(rows, weights=sizes).tolist()) == _one_by_one(sizes, length)


def _counting(store: TokenStore, *runs: tuple[int, int]) -> TokenStore:
    return replace(store, counted=np.array(runs, dtype=np.int64))


def test_best_fit_reads_every_pair_once_and_no_document_that_fits_is_cut() -> None:
    store = _store(2, 40, 7, 100, 3, 13, 17, 5)
    packer = Packer(store, 16, seed=1, packing="best-fit")
    for epoch in range(3):
        batch = packer.batch(epoch * packer.rows_per_epoch, packer.rows_per_epoch)
        real = batch.mask
        seen = Counter(zip(batch.tokens[real].tolist(), batch.targets[real].tolist(), strict=True))
        begins = set(store.starts.tolist())
        assert seen == Counter((i, i + 1) for i in range(len(store.ids) - 1) if i + 1 not in begins)
        assert not batch.tokens[~real].any() and not batch.targets[~real].any()
        # A document of at most 16 pairs stands in one row, from its first token to its last.
        for row in batch.tokens.tolist():
            for start, end in zip(
                store.starts[:-1].tolist(), store.starts[1:].tolist(), strict=True
            ):
                if end - start - 1 <= 16:
                    assert sum(start <= token < end - 1 for token in row if token) in (
                        *(0, end - start - 1),
                        *((end - start - 2,) if start == 0 else ()),  # id 0 looks like padding
                    )
        for positions, mask in zip(batch.segment_pos.tolist(), real.tolist(), strict=True):
            padding = mask.count(False)
            assert positions[len(mask) - padding :] == list(range(padding))
    assert not (packer.batch(0, 3).tokens == packer.batch(packer.rows_per_epoch, 3).tokens).all()


@pytest.mark.parametrize("packing", ["cut", "best-fit"])
def test_rows_without_a_target_are_left_out(packing: str) -> None:
    store = _counting(_store(30, 40, 7, 100, 3, 13), (10, 12), (33, 36), (175, 177))
    packer = Packer(store, 8, seed=3, packing=packing)  # pyright: ignore[reportArgumentType]
    ends = [packer.rows_in(epoch) for epoch in range(6)]
    rows = packer.batch(0, ends[5])
    assert rows.mask.any(1).all()
    # 187 pairs: 23 rows; or 4, 5, 1, 13, 1 and 2 pieces, of which 3 have a target.
    assert packer.left_out == (23 - ends[1] if packing == "cut" else 26 - 3)
    whole = set()
    for first, last in itertools.pairwise(ends):
        part = packer.batch(first, last - first)
        seen = Counter(part.targets[part.mask].tolist())
        assert set(seen) <= {10, 11, 33, 34, 35, 175, 176} and set(seen.values()) == {1}
        whole |= set(seen)
        assert packer.epochs_at(first) == ends.index(first)
    assert whole == {10, 11, 33, 34, 35, 175, 176}
    # Another way to ask, the same rows.
    fresh = Packer(store, 8, seed=3, packing=packing)  # pyright: ignore[reportArgumentType]
    for row in (ends[5] - 1, ends[3], 0, ends[4] - 1):
        assert (fresh.batch(row, 1).tokens[0] == rows.tokens[row]).all()
    if packing == "best-fit":
        assert (
            packer.rows_per_epoch
            < Packer(_store(30, 40, 7, 100, 3, 13), 8, 3, "best-fit").rows_per_epoch
        )


def test_counted_tokens_are_those_of_the_runs() -> None:
    store = _counting(_store(30, 20), (3, 5), (8, 9), (20, 31))
    plain = np.zeros(50, dtype=bool)
    for first, last in ((3, 5), (8, 9), (20, 31)):
        plain[first:last] = True
    for start in range(50):
        assert store.counted_before(np.array([start])) == plain[:start].sum()
        assert (store.is_counted(start, 50) == plain[start:]).all()
    nothing = _counting(_store(30, 20))
    nothing = replace(nothing, counted=np.zeros((0, 2), dtype=np.int64))
    with pytest.raises(ValueError, match="none of them a target"):
        Packer(nothing, 8, seed=0)


def test_streams_go_on_from_row_to_row() -> None:
    """Row n and row n + streams are neighbours in the text, but where an epoch ends."""
    store = _store(2, 40, 7, 100, 3, 13, 64)
    packer = Packer(store, 8, seed=2, streams=3)
    each = store.num_pairs // (8 * 3)
    assert packer.rows_per_epoch == each * 3
    begins = set(store.starts.tolist())
    for epoch in range(2):
        batch = packer.batch(epoch * each * 3, each * 3)
        for stream in range(3):
            tokens = batch.tokens[stream::3].flatten().tolist()
            targets = batch.targets[stream::3].flatten().tolist()
            positions = batch.segment_pos[stream::3].flatten().tolist()
            expected = 0
            for at, (token, target, position) in enumerate(
                zip(tokens, targets, positions, strict=True)
            ):
                assert target == token + 1
                assert at == 0 or token in begins or token == targets[at - 1]
                expected = 0 if at == 0 or token in begins else expected + 1
                assert position == expected
    with pytest.raises(ValueError, match="less than 90 rows of 8"):
        Packer(store, 8, seed=2, streams=90)
