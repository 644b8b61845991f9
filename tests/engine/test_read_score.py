"""Reading in pieces equals reading at once; scores equal a plain log-softmax."""

from __future__ import annotations

import pytest
import torch

from griffin.engine import read, score
from griffin.model import Griffin, GriffinConfig
from tests.support.layers import recurrent

V = 31


@pytest.fixture(scope="module")
def model() -> Griffin:
    torch.manual_seed(1)
    config = GriffinConfig(
        vocab_size=V,
        width=16,
        mlp_width=32,
        lru_width=16,
        num_heads=2,
        num_gate_blocks=2,
        block_types=("recurrent", "attention"),
        attention_window_size=8,
    )
    return Griffin(config).eval()


IDS = torch.randint(V, (300,), generator=torch.Generator().manual_seed(0)).tolist()


@pytest.mark.parametrize("pieces", [[IDS], [IDS[:1], IDS[1:50], [], IDS[50:]], [[i] for i in IDS]])
def test_pieces_do_not_matter(model, pieces):
    with torch.no_grad():
        hidden, whole = model.trunk(torch.tensor([IDS]))
    seen = []
    state, last = read(model, iter(pieces), chunk=64, progress=seen.append)
    assert seen == [64, 128, 192, 256, 300]
    assert torch.allclose(last, hidden[:, -1], atol=1e-5)
    assert state.pos.tolist() == [300]
    for a, b in zip(state.layers, whole.layers, strict=True):
        assert all(torch.allclose(x, y, atol=1e-5) for x, y in zip(a, b, strict=True))
    again, same = read(model, [IDS], chunk=64)
    assert torch.equal(same, last) and torch.equal(recurrent(again).lru, recurrent(state).lru)


def test_reading_goes_on_and_leaves_the_first_state_alone(model):
    state, _ = read(model, [IDS[:100]], chunk=64)
    before = state.clone()
    first, a = read(model, [IDS[100:]], state, chunk=64)
    second, b = read(model, [IDS[100:]], state, chunk=64)
    assert torch.equal(a, b) and torch.equal(recurrent(state).lru, recurrent(before).lru)
    assert first.pos.tolist() == second.pos.tolist() == [300]


def test_read_refuses_what_it_cannot_read(model):
    with pytest.raises(ValueError, match="prompt is empty"):
        read(model, [[], []])
    with pytest.raises(ValueError, match=f"id {V} at position 1"):
        read(model, [[1, V]])
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        read(model, [[1]], chunk=0)


@pytest.mark.parametrize("chunk", [1, 7, 64, 299, 1000])
def test_score_equals_log_softmax(model, chunk, monkeypatch):
    rows = []
    unembed = model.unembed
    monkeypatch.setattr(model, "unembed", lambda h: rows.append(len(h)) or unembed(h))
    scores = score(model, IDS, chunk=chunk)
    monkeypatch.undo()
    with torch.no_grad():
        logits, _ = model.double()(torch.tensor([IDS]))
    model.float()
    exact = logits[0, :-1].log_softmax(-1).gather(1, torch.tensor(IDS)[1:, None]).squeeze(1)
    assert scores.dtype == torch.float32 and scores.shape == (299,)
    assert torch.allclose(scores.double(), exact, atol=1e-5)
    assert max(rows) <= 256 and sum(rows) == 299


def test_score_of_one_token_is_empty_and_of_none_an_error(model):
    assert score(model, [3]).tolist() == []
    with pytest.raises(ValueError, match="the text is empty"):
        score(model, [])
