"""Tensors from rank to rank, and their gradients the other way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup, all_to_all_single


def exchange(
    parts: Sequence[Tensor], receives: Sequence[int], group: ProcessGroup
) -> tuple[Tensor, ...]:
    """Send one tensor to every rank of a group, and return those that they send here.

    parts:    one a rank, any shapes, of one type; an empty one where there is nothing to say.
    receives: how many numbers each rank sends here.
    Returns flat tensors. All ranks of the group call it at the same time, and again in the backward
    pass: every part, empty ones too, must come from what gradients flow into, or none on any rank.
    """
    sends = tuple(part.numel() for part in parts)
    packed = torch.cat([part.reshape(-1) for part in parts])
    got: Any = _Exchange.apply(packed, sends, tuple(receives), group)
    return got.split(tuple(receives))


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        packed: Tensor,
        sends: tuple[int, ...],
        receives: tuple[int, ...],
        group: ProcessGroup,
    ) -> Tensor:
        ctx.sends, ctx.receives, ctx.group = sends, receives, group
        return _all_to_all(packed, sends, receives, group)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides its names
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        back = _all_to_all(grads[0].contiguous(), ctx.receives, ctx.sends, ctx.group)
        return back, None, None, None


def _all_to_all(
    packed: Tensor, sends: Sequence[int], receives: Sequence[int], group: ProcessGroup
) -> Tensor:
    got = packed.new_empty(sum(receives))
    all_to_all_single(got, packed, list(receives), list(sends), group=group)
    return got
