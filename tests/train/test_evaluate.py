from __future__ import annotations

import gzip
import lzma
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from griffin.train.data.encode import Encoded
from griffin.train.data.store import TokenStore
from griffin.train.evaluate import bits_in_rows, bits_in_streams, compressors, validation_documents
from griffin.train.loop import Trainer


def _documents(*lengths: int) -> list[Encoded]:
    chance = np.random.default_rng(0)
    return [Encoded.whole(chance.integers(0, 480, length)) for length in lengths]


def test_a_model_that_knows_nothing_needs_log2_of_the_vocabulary(
    trainer: Callable[..., Trainer],
) -> None:
    model = trainer().model
    with torch.no_grad():
        model.model.embed_tokens.weight.zero_()
    documents = _documents(30, 2, 9)
    expected = (29 + 1 + 8) * math.log2(480)
    assert bits_in_rows(model, documents, 12, rows=2) == pytest.approx(expected, rel=1e-6)
    assert bits_in_streams(model, documents, 12) == pytest.approx(expected, rel=1e-6)


def test_rows_forget_and_streams_do_not(trainer: Callable[..., Trainer]) -> None:
    model = trainer().model
    documents = _documents(50, 21, 2)
    whole = sum(_one(model, document.ids) for document in documents)
    pieces = sum(
        _one(model, document.ids[at : at + 8])
        for document in documents
        for at in range(0, len(document.ids) - 1, 7)
    )
    assert bits_in_streams(model, documents, 7) == pytest.approx(whole, rel=1e-5)
    assert bits_in_streams(model, documents, 100) == pytest.approx(whole, rel=1e-5)
    assert bits_in_rows(model, documents, 7, rows=3) == pytest.approx(pieces, rel=1e-5)
    assert abs(whole - pieces) > 1


def test_short_documents_are_not_read_as_long_rows(
    trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trainer().model
    documents, read = _documents(9, 4, 30, 6), list[int]()
    expected = sum(_one(model, document.ids) for document in documents)
    trunk = model.trunk
    monkeypatch.setattr(
        model,
        "trunk",
        lambda tokens, *rest, **more: read.append(tokens.numel()) or trunk(tokens, *rest, **more),
    )
    assert bits_in_rows(model, documents, 512, rows=2) == pytest.approx(expected, rel=1e-5)
    assert read == [2 * 8, 2 * 29]


def _one(model: torch.nn.Module, ids: np.ndarray) -> float:
    """Return the bits of one piece by the model's own logits."""
    tokens = torch.from_numpy(ids)
    with torch.no_grad():
        logits = model(tokens[None, :-1])[0][0].double()
    nats = -logits.log_softmax(-1)[torch.arange(len(ids) - 1), tokens[1:]].sum()
    return float(nats) / math.log(2)


def test_progress_counts_every_token(trainer: Callable[..., Trainer]) -> None:
    seen: list[int] = []
    bits_in_streams(trainer().model, _documents(30, 2), 12, seen.append)
    assert seen == [12, 12, 5, 1]


def test_validation_takes_whole_documents() -> None:
    starts = np.cumsum([0, 50, 20, 40, 5])
    store = TokenStore(
        np.arange(115, dtype=np.uint16), starts, (500, 200, 400, 50), ("a", "b", "c", "d")
    )
    [(documents, size)] = validation_documents({"s": store}, 60).values()
    assert [len(d.ids) for d in documents] == [50, 5] and size == 550
    [(documents, size)] = validation_documents({"s": store}, 1000).values()
    assert len(documents) == 4 and size == 1150
    [(documents, size)] = validation_documents({"s": store}, 3).values()
    assert documents[0].ids.tolist() == [110, 111, 112, 113, 114] and size == 50


def test_only_what_is_counted_is_measured(trainer: Callable[..., Trainer]) -> None:
    model = trainer().model
    [whole] = _documents(30)
    parts = [np.arange(30) % 3 == 0, np.arange(30) % 3 == 1, np.arange(30) % 3 == 2]
    for bits in (partial(bits_in_rows, rows=4), bits_in_streams):
        apart = [bits(model, [Encoded(whole.ids, part, 0)], 8) for part in parts]
        assert sum(apart) == pytest.approx(bits(model, [whole], 8), rel=1e-5)
        assert 0 < min(apart) < max(apart)


def test_compressors() -> None:
    texts = [b"abc" * 100, b"def f(x): return x\n" * 20]
    results = compressors(texts)
    size, both = sum(map(len, texts)), b"".join(texts)
    packed = len(lzma.compress(both, preset=9 | lzma.PRESET_EXTREME))
    assert results["xz -9e"]["one stream"] == pytest.approx(8 * packed / size)
    alone = sum(len(gzip.compress(text, 9)) for text in texts)
    assert results["gzip -9"]["each file"] == pytest.approx(8 * alone / size)
