from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from griffin.ops import pack, packed_linear, unpack
from griffin.ops.packed_linear import LAYOUTS
from griffin.train import tiles
from griffin.train.loss import chunked_cross_entropy, token_nats
from tests.support.largest import Largest


def _case(
    tokens: tuple[int, ...], vocab: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(*tokens, 6, generator=generator, dtype=dtype).mul_(3).requires_grad_()
    weight = torch.randn(vocab, 6, generator=generator, dtype=dtype).requires_grad_()
    targets = torch.randint(vocab, tokens, generator=generator)
    mask = torch.rand(tokens, generator=generator) < 0.7
    return hidden, weight, targets, mask


def _plain(
    hidden: Tensor, weight: Tensor, targets: Tensor, mask: Tensor | None, cap: float
) -> Tensor:
    logits = hidden @ weight.T
    logits = cap * torch.tanh(logits / cap) if cap else logits
    nats = functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
    return nats.sum() if mask is None else (nats * mask.flatten()).sum()


@pytest.mark.sweep
@pytest.mark.parametrize("cap", [0.0, 4.0])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("tile", "vocab_block"), [(10**6, 10**6), (17, 10**6), (64, 10), (1, 1), (10**6, 13)]
)
@pytest.mark.parametrize("tokens", [(1,), (3, 5)])
def test_equals_plain_cross_entropy(
    cap: float, masked: bool, tile: int, vocab_block: int, tokens: tuple[int, ...]
) -> None:
    hidden, weight, targets, mask = _case(tokens, 37, torch.float64)
    mask = mask if masked else None
    nats, count = chunked_cross_entropy(
        hidden, weight, targets, mask, cap, tile=tile, vocab_block=vocab_block
    )
    grads = torch.autograd.grad(nats * 0.7, (hidden, weight))
    expected = _plain(hidden, weight, targets, mask, cap)
    torch.testing.assert_close(nats, expected, rtol=1e-12, atol=1e-12)
    assert int(count) == (targets.numel() if mask is None else int(mask.sum()))
    for ours, theirs in zip(
        grads, torch.autograd.grad(expected * 0.7, (hidden, weight)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cap", [0.0, 4.0])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("tile", "vocab_block"), [(10**6, 10**6), (17, 10**6), (64, 10), (1, 1)])
def test_nats_of_each_token(
    cap: float, masked: bool, frozen: bool, in_place: bool, tile: int, vocab_block: int
) -> None:
    """Each with an upstream gradient of its own, one of them zero, one negative."""
    hidden, weight, targets, mask = _case((3, 5), 37, torch.float64)
    mask, upstream = mask if masked else None, torch.linspace(-1.0, 6.0, 15).double().view(3, 5)
    weight.requires_grad_(not frozen)
    options = {"tile": tile, "vocab_block": vocab_block, "in_place": in_place}
    nats = token_nats(hidden, weight, targets, mask, cap, **options)
    logits = hidden @ weight.T
    logits = cap * torch.tanh(logits / cap) if cap else logits
    plain = functional.cross_entropy(logits.movedim(-1, 1), targets, reduction="none")
    plain = plain if mask is None else plain * mask
    torch.testing.assert_close(nats, plain, rtol=1e-12, atol=1e-12)
    given = [hidden] if frozen else [hidden, weight]
    wanted = torch.autograd.grad((plain * upstream).sum(), given)
    (nats * upstream).sum().backward()
    for one, gradient in zip(given, wanted, strict=True):
        torch.testing.assert_close(one.grad, gradient, rtol=1e-10, atol=1e-12)
    assert frozen == (weight.grad is None)


def test_nats_of_each_token_sum_to_the_loss() -> None:
    hidden, weight, targets, mask = _case((4, 5), 300, torch.float32)
    options = {"soft_cap": 7.0, "tile": 500, "vocab_block": 64}
    each = token_nats(hidden, weight, targets, mask, **options)
    nats, _ = chunked_cross_entropy(hidden, weight, targets, mask, **options)
    assert torch.equal(each[mask].sum(), nats)
    ours, theirs = (torch.autograd.grad(loss, (hidden, weight)) for loss in (each.sum(), nats))
    assert all(map(torch.equal, ours, theirs))
    with torch.no_grad():
        assert torch.equal(token_nats(hidden, weight, targets, mask, **options), each)
    nothing = token_nats(hidden, weight, targets, torch.zeros_like(mask))
    assert torch.equal(nothing, torch.zeros(4, 5))


@pytest.mark.parametrize(("tile", "vocab_block"), [(1000, 1000), (12, 4)])
def test_gradcheck(tile: int, vocab_block: int) -> None:
    hidden, weight, targets, mask = _case((2, 3), 11, torch.float64)

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        return chunked_cross_entropy(
            hidden, weight, targets, mask, 3.0, tile=tile, vocab_block=vocab_block
        )[0]

    assert torch.autograd.gradcheck(loss, (hidden, weight))


def test_huge_logits_stay_finite() -> None:
    hidden = torch.full((2, 4), 1e4, requires_grad=True)
    weight = torch.tensor([[1.0] * 4, [-1.0] * 4, [0.5] * 4], requires_grad=True)
    nats, _ = chunked_cross_entropy(hidden, weight, torch.tensor([0, 2]), vocab_block=2)
    nats.backward()
    assert nats.item() == pytest.approx(2e4)
    assert hidden.grad is not None and hidden.grad.isfinite().all()


def test_one_of_the_two_may_be_frozen() -> None:
    hidden, weight, targets, _ = _case((4,), 9, torch.float64)
    chunked_cross_entropy(hidden.detach(), weight, targets)[0].backward()
    alone, weight.grad = weight.grad, None
    chunked_cross_entropy(hidden, weight, targets)[0].backward()
    assert alone is not None and weight.grad is not None
    torch.testing.assert_close(alone, weight.grad)
    hidden.grad = None
    chunked_cross_entropy(hidden, weight.detach(), targets)[0].backward()
    assert hidden.grad is not None
    with torch.no_grad():
        assert not chunked_cross_entropy(hidden, weight, targets)[0].requires_grad


def test_bfloat16_products_are_close() -> None:
    hidden, weight, targets, _ = _case((64,), 50, torch.float32)
    exact = _plain(hidden, weight, targets, None, 30.0)
    near = chunked_cross_entropy(hidden, weight, targets, None, 30.0, torch.bfloat16)[0]
    assert near.dtype == torch.float32
    assert near.item() == pytest.approx(exact.item(), rel=0.01)
    assert near.item() != exact.item()


@pytest.mark.parametrize("vocab_block", [64, 4096])
def test_no_tensor_of_all_logits_exists(vocab_block: int) -> None:
    hidden, weight, targets, _ = _case((200,), 1000, torch.float32)
    with Largest() as largest:
        nats, _ = chunked_cross_entropy(
            hidden, weight, targets, None, 5.0, tile=2000, vocab_block=vocab_block
        )
        nats.backward()
    assert largest.entries <= max(2000, weight.numel(), hidden.numel()) < 200 * 1000


@pytest.mark.parametrize("loss", [chunked_cross_entropy, token_nats])
@pytest.mark.parametrize("tile", [700, 10**6])
def test_a_frozen_head_is_never_copied(loss: Any, tile: int) -> None:
    """Neither for a gradient nor in another type; a slice of it may be."""
    hidden, weight, targets, _ = _case((3,), 1000, torch.float32)
    frozen = weight.detach().bfloat16()
    options = {"tile": tile, "vocab_block": tile, "dtype": torch.bfloat16}
    with Largest() as largest:
        found = loss(hidden, frozen, targets, **options)
        (found if loss is token_nats else found[0]).sum().backward()
    assert hidden.grad is not None and hidden.grad.any()
    assert largest.entries <= min(tile, 3 * 1000) < weight.numel()
    with Largest() as largest:
        options["dtype"] = torch.float32
        loss(hidden, frozen, targets, **options)
    assert largest.entries == min(tile * 6, weight.numel())  # a tile's columns, widened


@pytest.mark.parametrize("format", LAYOUTS)
@pytest.mark.parametrize("cap", [0.0, 4.0])
@pytest.mark.parametrize("tile", [40, 300, 10**6])
def test_a_packed_head(format: str, cap: float, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits are those of the engine, gradients those of the unpacked head; never whole."""
    monkeypatch.setattr(tiles, "UNPACKED", 70 * 64)
    generator = torch.Generator().manual_seed(0)
    head = pack(torch.randn(500, 64, generator=generator), format)
    hidden = torch.randn(3, 5, 64, generator=generator).requires_grad_()
    targets = torch.randint(500, (3, 5), generator=generator)
    mask, upstream = torch.rand(3, 5, generator=generator) < 0.7, torch.linspace(-1, 2, 15)
    with Largest() as largest:
        nats = token_nats(hidden, head, targets, mask, cap, tile=tile)
        (nats * upstream.view(3, 5)).sum().backward()
    assert largest.entries <= max(64 * 64, tile if tile < 10**6 else 15 * 64) < 500 * 64
    with torch.no_grad():
        logits = packed_linear(hidden, head)
        logits = cap * torch.tanh(logits / cap) if cap else logits
        exact = functional.cross_entropy(logits.movedim(-1, 1), targets, reduction="none") * mask
    torch.testing.assert_close(nats, exact, rtol=1e-5, atol=2e-6)
    total, _ = chunked_cross_entropy(hidden, head, targets, mask, cap, tile=tile)
    torch.testing.assert_close(total, exact.sum())
    wide = logits.double().requires_grad_()
    again = functional.cross_entropy(wide.movedim(-1, 1), targets, reduction="none") * mask
    (slope,) = torch.autograd.grad((again * upstream.view(3, 5)).sum(), wide)
    slope = slope * (1 - (logits.double() / cap) ** 2) if cap else slope
    assert hidden.grad is not None
    wanted = (slope @ unpack(head).double()).float()
    torch.testing.assert_close(hidden.grad, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.tensor([0, 9])}, r"targets must lie in \[0, 9\), found 0 to 9"),
        ({"targets": torch.tensor([-1, 0])}, r"found -1 to 0"),
        ({"targets": torch.tensor([0])}, "do not fit"),
        ({"weight": torch.zeros(9, 5)}, "do not fit"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, "mask"),
    ],
)
def test_errors(change: dict[str, Any], message: str) -> None:
    good = {
        "hidden": torch.zeros(2, 6),
        "weight": torch.zeros(9, 6),
        "targets": torch.tensor([0, 8]),
    }
    with pytest.raises(ValueError, match=message):
        chunked_cross_entropy(**(good | change))


def test_targets_that_are_masked_may_be_anything() -> None:
    hidden, weight, targets, mask = _case((5,), 9, torch.float32)
    strange = torch.where(mask, targets, -100)
    ours = chunked_cross_entropy(hidden, weight, strange, mask)[0]
    assert ours.item() == pytest.approx(_plain(hidden, weight, targets, mask, 0.0).item())
    nothing, count = chunked_cross_entropy(hidden, weight, strange, torch.zeros_like(mask))
    assert nothing.item() == 0.0 and int(count) == 0
