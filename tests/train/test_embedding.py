"""The gradients of embedding and head, added in place: the same, and in memory once."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from griffin.model import Griffin, GriffinConfig
from griffin.train.data.rows import TrainBatch
from griffin.train.embedding import add_in_place
from griffin.train.loss import row_nats
from tests.support.ranks import forking
from tests.train.conftest import MODEL


def batch(vocab: int, rows: int = 2, length: int = 12) -> TrainBatch:
    chance = torch.Generator().manual_seed(rows)
    tokens = torch.randint(vocab, (rows, length + 1), generator=chance)
    positions = torch.arange(length).expand(rows, length).contiguous()
    mask = torch.rand(rows, length, generator=chance) < 0.8
    return TrainBatch(tokens[:, :-1], tokens[:, 1:], positions, mask)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("vocab", [480, 20_000])  # one tile, and three
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_autograd(tied: bool, vocab: int, dtype: torch.dtype) -> None:
    config = GriffinConfig.from_dict(MODEL | {"vocab_size": vocab, "tie_embeddings": tied})
    torch.manual_seed(0)
    plain, ours = Griffin(config), Griffin(config)
    ours.load_state_dict(plain.state_dict())
    add_in_place(ours)
    assert [name for name, _ in ours.named_parameters()] == [n for n, _ in plain.named_parameters()]
    for rows in (2, 3):  # two micro-batches
        (row_nats(plain, batch(vocab, rows), dtype)[0] / 7).backward()
        (row_nats(ours, batch(vocab, rows), dtype, in_place=True)[0] / 7).backward()
    for (name, one), other in zip(plain.named_parameters(), ours.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None, name
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_what_is_frozen_has_no_gradient() -> None:
    model = Griffin(GriffinConfig.from_dict(MODEL | {"vocab_size": 20_000}))
    add_in_place(model)
    model.model.embed_tokens.weight.requires_grad_(False)
    row_nats(model, batch(20_000), in_place=True)[0].backward()
    assert model.model.embed_tokens.weight.grad is None
    assert model.model.final_norm.weight.grad is not None


def measure(head: str, told: Path) -> None:
    """Tell how much memory the gradients of two micro-batches take, in heads."""
    torch.set_num_threads(1)
    vocab, width = 131_072, 256
    values = MODEL | {"vocab_size": vocab, "width": width, "lru_width": width}
    model = Griffin(GriffinConfig.from_dict(values))
    add_in_place(model)
    model.model.embed_tokens.weight.requires_grad_(head == "trained")
    row_nats(model, batch(vocab))  # whatever is made once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for rows in (2, 3):
        row_nats(model, batch(vocab, rows), in_place=True)[0].backward()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told.write_text(str((after - before) * 1024 / (vocab * width * 4)))


@pytest.mark.thorough
@pytest.mark.parametrize(("head", "least", "most"), [("trained", 0.9, 1.2), ("frozen", 0.0, 0.2)])
def test_two_micro_batches_hold_the_gradient_of_a_large_head_once(
    head: str, least: float, most: float, tmp_path: Path
) -> None:
    """In heads of 131,072 by 256 in float32, 134 MB, beyond the weights and one forward pass; in a
    process of its own."""
    process: Any = forking().Process(target=measure, args=(head, tmp_path / "told"))
    process.start()
    process.join()
    assert least <= float((tmp_path / "told").read_text()) <= most


def test_a_frequent_token_of_bfloat16_weights_gets_all_its_parts() -> None:
    """3,000 equal parts one after the other in bfloat16 would stop at 256 of them."""
    model = Griffin(GriffinConfig.from_dict(MODEL)).to(torch.bfloat16)
    add_in_place(model)
    embedding = model.model.embed_tokens
    tokens = torch.full((1, 3_000), 5)
    tokens[0, :7] = 9
    embedding(tokens).sum().backward()
    gradient = embedding.weight.grad
    assert gradient is not None and gradient.dtype == torch.bfloat16
    scale = float(torch.as_tensor(embedding.scale))
    assert float(gradient[5, 0]) == pytest.approx(2_993 * scale, rel=1 / 256)
    assert float(gradient[9, 0]) == pytest.approx(7 * scale, rel=1 / 256)
    assert gradient[[0, 1, 4, 6]].abs().sum() == 0
