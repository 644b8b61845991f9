"""Several sources as one: shares, stages, caps, and any row without those before it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from griffin.train.data.mixture import Ingredient, Mixture, Portion
from griffin.train.data.rows import Packer
from griffin.train.data.store import TokenStore


def _packer(first: int, documents: int, streams: int = 0) -> Packer:
    """Documents of 33 ids each, all from `first` on: two rows of 16 a document."""
    starts = np.arange(documents + 1) * 33
    ids = np.arange(first, first + int(starts[-1]), dtype=np.uint32)
    names = tuple(f"{first}/{number}" for number in range(documents))
    store = TokenStore(ids, starts, (1,) * documents, names)
    return Packer(store, 16, seed=[1, first], streams=streams)


def _mixture(*portions: Portion, together: int = 1, caps: tuple[float, ...] = (0, 0, 0)) -> Mixture:
    streams = together if together > 1 else 0
    packers = [_packer(1000 * n, size, streams) for n, size in ((1, 4), (2, 6), (3, 20))]
    sources = [
        Ingredient(f"s{n}", p, cap) for n, (p, cap) in enumerate(zip(packers, caps, strict=True))
    ]
    return Mixture(sources, portions, together)


def test_rows_are_those_of_the_sources_in_their_own_order() -> None:
    mixture = _mixture(Portion("a", 60, (0.5, 0.3, 0.2)), Portion("b", 100, (0.0, 0.25, 0.75)))
    whole = mixture.batch(0, 160)
    seen = [0, 0, 0]
    for row in range(160):
        assert mixture.read(row) == seen
        source, number = mixture.place(row)
        assert number == seen[source]
        alone = mixture.sources[source].packer.batch(number, 1)
        assert (alone.tokens[0] == whole.tokens[row]).all()
        assert (alone.segment_pos[0] == whole.segment_pos[row]).all()
        assert mixture.documents(row) == mixture.sources[source].packer.documents(number)
        seen[source] += 1
        if row == 59:
            assert seen == [30, 18, 12]
    assert seen == [30, 18 + 25, 12 + 75]
    fresh = _mixture(Portion("a", 60, (0.5, 0.3, 0.2)), Portion("b", 100, (0.0, 0.25, 0.75)))
    for row in (159, 60, 59, 0, 100):
        assert (fresh.batch(row, 1).tokens[0] == whole.tokens[row]).all()
    told = mixture.progress(160)
    assert told["sources"]["s0"] == {"epoch": 30 / 8, "tokens": 30 * 16}
    assert told["epoch"] == 160 / 60


def test_what_a_cap_frees_goes_to_the_others() -> None:
    mixture = _mixture(Portion("", 200, (0.5, 0.25, 0.25)), caps=(2, 1.5, 0))
    owners = [mixture.place(row)[0] for row in range(200)]
    assert Counter(owners) == {0: 16, 1: 18, 2: 166}
    end = max(row for row, owner in enumerate(owners) if owner == 0)
    assert Counter(owners[: end + 1])[2] == pytest.approx(8, abs=1)
    # From then on in the proportion of those left, until the second has ended too.
    later = Counter(owners[end + 1 : end + 11])
    assert later == {1: 5, 2: 5}
    assert mixture.read(200) == [16, 18, 166]


def test_epochs_that_do_not_last_are_refused() -> None:
    with pytest.raises(ValueError, match=r"after 28 of them in stage 'b' all .* s0 \(1 epochs\)"):
        _mixture(Portion("a", 20, (0, 1, 1)), Portion("b", 40, (1, 0, 0)), caps=(1, 0, 0))
    assert _mixture(Portion("b", 8, (1, 0, 0)), caps=(1, 0, 0)).read(8) == [8, 0, 0]


def test_with_streams_a_micro_batch_has_one_source_and_goes_on_where_its_last_one_ended() -> None:
    mixture = _mixture(Portion("", 80, (0.5, 0.25, 0.25)), together=2)
    last: dict[tuple[int, int], int] = {}
    goes_on = 0
    for unit in range(40):
        sources = {mixture.place(row)[0] for row in (2 * unit, 2 * unit + 1)}
        [source] = sources
        batch = mixture.batch(2 * unit, 2)
        for stream in range(2):
            tokens, at = batch.tokens[stream].tolist(), batch.segment_pos[stream].tolist()
            if at[0]:
                assert tokens[0] == last[source, stream]
                goes_on += 1
            last[source, stream] = int(batch.targets[stream, -1])
    assert goes_on > 20
    assert mixture.read(2 * 21 + 1) == [
        n + (source == mixture.place(43)[0]) for source, n in enumerate(mixture.read(42))
    ]
