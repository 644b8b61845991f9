from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from griffin.train.data.encode import Encoded
from griffin.train.data.rows import Packer, pad_documents
from griffin.train.data.store import TokenStore


def _store(*lengths: int) -> TokenStore:
    """Documents whose every id is unique, so that a pair tells where it comes from."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(starts[-1], dtype=np.uint16)
    return TokenStore(ids, starts, tuple(lengths), tuple(map(str, lengths)))


def _pairs(packer: Packer, first: int, rows: int) -> Counter[tuple[int, int]]:
    batch = packer.batch(first, rows)
    return Counter(
        zip(batch.tokens.flatten().tolist(), batch.targets.flatten().tolist(), strict=True)
    )


def test_an_epoch_trains_every_pair_once() -> None:
    store = _store(2, 40, 7, 100, 3, 13)
    packer = Packer(store, length=16, seed=0)
    seen = _pairs(packer, 0, packer.rows_per_epoch)
    starts = set(store.starts.tolist())
    real = {(i, i + 1) for i in range(len(store.ids) - 1) if i + 1 not in starts}
    assert set(seen) <= real
    assert set(seen.values()) == {1}
    assert len(real) - len(seen) == store.num_pairs % 16


def test_positions_restart_at_documents_and_rows() -> None:
    store = _store(2, 40, 7, 100, 3, 13)
    packer = Packer(store, length=16, seed=0)
    batch = packer.batch(0, packer.rows_per_epoch)
    starts = set(store.starts.tolist())
    for tokens, positions in zip(batch.tokens.tolist(), batch.segment_pos.tolist(), strict=True):
        expected = 0
        for at, (token, position) in enumerate(zip(tokens, positions, strict=True)):
            expected = 0 if at == 0 or token in starts else expected + 1
            assert position == expected
    assert batch.mask.all()


def test_rows_do_not_depend_on_how_they_are_asked_for() -> None:
    store = _store(2, 40, 7, 100, 3, 13)
    packer = Packer(store, length=16, seed=3)
    count = packer.rows_per_epoch
    together = packer.batch(0, 3 * count)
    fresh = Packer(store, length=16, seed=3)
    for row in (2 * count + 1, 0, count):
        assert (fresh.batch(row, 1).tokens[0] == together.tokens[row]).all()
    assert not (together.tokens[:count] == together.tokens[count : 2 * count]).all()
    assert not (Packer(store, 16, seed=4).batch(0, count).tokens == together.tokens[:count]).all()


def test_too_little_text_for_a_row() -> None:
    with pytest.raises(ValueError, match="less than one row of 16"):
        Packer(_store(9), length=16, seed=0)


def test_padded_rows_keep_order_and_mask_padding() -> None:
    documents = [Encoded.whole(np.arange(10, 21)), Encoded.whole(np.arange(50, 52))]
    batch = pad_documents(documents, 4)
    assert batch.tokens.tolist() == [
        [10, 11, 12, 13],
        [14, 15, 16, 17],
        [18, 19, 0, 0],
        [50, 0, 0, 0],
    ]
    assert batch.targets[batch.mask].tolist() == [*range(11, 21), 51]
    assert batch.segment_pos.tolist() == [[0, 1, 2, 3]] * 4
