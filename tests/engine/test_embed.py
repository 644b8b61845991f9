"""Vectors of texts: what the trunk says of them, whoever is read beside them."""

from __future__ import annotations

import pytest
import torch

from griffin.engine import embed
from griffin.engine.embed import ROWS
from tests.support.toy_engine import V, ids

LENGTHS = (1, 40, 3, 3, 17, 2, 100, 5, 5, 5, 5, 5, 9, 31, 1)
TEXTS = [ids(n, seed=seed) for seed, n in enumerate(LENGTHS)]


def plain(model, text, pooling):
    """The same from one call and a plain formula."""
    hidden, _ = model.trunk(torch.tensor([text]))
    pooled = hidden[0].double().mean(0) if pooling == "mean" else hidden[0, -1].double()
    return (pooled / pooled.norm()).float()


@pytest.mark.sweep
@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("chunk", [1, 7, 64, 512])
def test_they_are_the_formula_alone_and_in_company(model, pooling, chunk):
    made = embed(model, TEXTS, pooling, chunk=chunk)
    assert made.shape == (len(TEXTS), model.config.width) and made.dtype == torch.float32
    for row, text in zip(made, TEXTS, strict=True):
        assert torch.allclose(row, plain(model, text, pooling), atol=2e-6)
        assert torch.equal(row, embed(model, [text], pooling, chunk=chunk)[0])
        assert float(row.norm()) == pytest.approx(1, abs=1e-6)
    assert len({tuple(row.tolist()) for row in made}) == len(TEXTS)


def test_short_texts_share_calls_and_long_ones_are_read_in_chunks(model):
    calls: list[int] = []
    embed(model, TEXTS, chunk=64, rest=lambda: calls.append(1))
    assert len(calls) < len(TEXTS)
    embed(model, [[1]] * (2 * ROWS + 1), chunk=512, rest=lambda: calls.append(2))
    assert calls.count(2) == 3  # each row has a state: no more of them at a time
    embed(model, [ids(100)], chunk=64, rest=lambda: calls.append(3))
    assert calls.count(3) == 2

    def enough():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(model, TEXTS, rest=enough)


def test_what_is_no_text(model):
    assert embed(model, []).shape == (0, model.config.width)
    for texts, message in (([[]], "the text is empty"), ([[1], [V]], f"text 1 has id {V}")):
        with pytest.raises(ValueError, match=message):
            embed(model, texts)
    with pytest.raises(ValueError, match="pooling is 'max'; there are mean and last"):
        embed(model, [[1]], "max")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        embed(model, [[1]], chunk=0)
