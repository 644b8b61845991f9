"""How close is equal: float32 sums taken in another order."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.model import State

TOLERANCE = 1e-5  # of the standard deviation; docs/numerics.md says where it comes from


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    scale = expected.std().item() if expected.numel() > 1 else expected.abs().item()
    worst = (actual - expected).abs().max().item()
    assert worst <= TOLERANCE * scale, f"off by {worst:.3g}, {worst / scale:.3g} of the deviation"


def tensors(state: State) -> list[Tensor]:
    return [state.pos, *(t for layer in state.layers for t in layer)]


def assert_states_close(actual: State, expected: State) -> None:
    assert torch.equal(actual.pos, expected.pos)
    for a, b in zip(tensors(actual)[1:], tensors(expected)[1:], strict=True):
        if torch.count_nonzero(b) == 0:
            assert torch.equal(a, b)
        else:
            assert_close(a, b)


def assert_states_equal(actual: State, expected: State) -> None:
    assert all(torch.equal(a, b) for a, b in zip(tensors(actual), tensors(expected), strict=True))
