"""Linear layers with low-rank additions, several of them side by side: what stands in for Linear.

`griffin.adapters` puts them into a model; LoRA, arXiv:2106.09685.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from griffin import ops
from griffin.model.layers import Linear
from griffin.model.packed import PackedLinear

# What the call reads with that this thread is in: others may be in the same model meanwhile.
_call = threading.local()


class Adapters:
    """The adapters that a model's layers hold, and which of them the rows of a call read with.

    names:   of the adapters, in order. digests: of each, a hash of what changes an answer.
    alone:   there is one, and it keeps modules whole: every row reads with it.
    """

    def __init__(
        self, names: Sequence[str] = (), digests: Sequence[str] = (), alone: bool = False
    ) -> None:
        self.names, self.digests, self.alone = tuple(names), tuple(digests), alone

    @property
    def chosen(self) -> tuple[int, ...] | None:
        """What each row reads with in the call that this thread is in; None: all with the first."""
        return getattr(_call, "chosen", None)

    def index(self, name: str) -> int:
        """Return which adapter has a name, -1 for "", which is none; ValueError for an unknown one,
        and for none where all rows read with the only one."""
        if name in self.names:
            return self.names.index(name)
        known = ", ".join(self.names) or "none"
        if name:
            raise ValueError(f"there is no adapter {name!r}; this model has {known}")
        if self.alone:
            raise ValueError(f"this model is read with adapter {known}, which changes it for all")
        return -1

    def places(self, index: int, device: torch.device) -> Tensor:
        """Return which rows read with an adapter, on a device: carried there once in a call."""
        if (index, device) not in _call.places:
            rows = [row for row, each in enumerate(self.chosen or ()) if each == index]
            _call.places[index, device] = ops.upload(rows, device)
        return _call.places[index, device]

    def digest(self, index: int) -> str:
        """Return what tells an adapter's answers from those of others; "" for -1, no adapter."""
        return self.digests[index] if index >= 0 else ""

    @contextmanager
    def reading(self, chosen: Sequence[int] | None, rows: int) -> Iterator[None]:
        """Read with these adapters, one of each row (-1: none), while the block runs; None: with
        the first alone. ValueError for other numbers of rows or adapters."""
        if chosen is not None:
            chosen = tuple(chosen)
            if not self.names and set(chosen) <= {-1}:
                chosen = None
        if chosen is not None:
            most = len(self.names)
            lowest = 0 if self.alone else -1
            if len(chosen) != rows or not all(lowest <= index < most for index in chosen):
                raise ValueError(
                    f"adapters must be {rows} numbers from {lowest} to {most - 1}, not {chosen}"
                )
        before = self.chosen, getattr(_call, "places", {})
        _call.chosen, _call.places = chosen, {}
        try:
            yield
        finally:
            _call.chosen, _call.places = before


class LowRank(nn.Module):
    """What an adapter adds to a linear layer: scale * (x A^T) B^T, with A (rank, I), B (O, rank).

    dropout: the share of x that is left out in training.
    """

    def __init__(self, lora_a: Tensor, lora_b: Tensor, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.lora_A, self.lora_B = nn.Parameter(lora_a), nn.Parameter(lora_b)
        self.scale, self.dropout = scale, dropout

    def forward(self, input: Tensor) -> Tensor:
        x = input.to(self.lora_A.dtype)
        if self.dropout and self.training:
            x = functional.dropout(x, self.dropout)
        # In training with the bits of an answer, so that samples and gradients are of one model.
        less = ops.linear(x, self.lora_A, as_without=True)
        added = ops.linear(less, self.lora_B, as_without=True)
        return (added * self.scale).to(input.dtype)

    def extra_repr(self) -> str:
        return f"rank={self.lora_A.shape[0]}, scale={self.scale:g}"


class AdaptedLinear(nn.Module):
    """A linear layer and what adapters add to it, each to the rows that read with it.

    base: the layer as it was, packed or not. added: by the adapters' places in `Adapters.names`;
    those that leave this layer alone are not in it.
    """

    def __init__(
        self, base: Linear | PackedLinear, added: dict[int, LowRank], adapters: Adapters
    ) -> None:
        super().__init__()
        self.base = base
        self.added = nn.ModuleDict({str(index): low_rank for index, low_rank in added.items()})
        self.adapters = adapters

    @property
    def in_features(self) -> int:
        return self.base.in_features

    @property
    def out_features(self) -> int:
        return self.base.out_features

    @property
    def bias(self) -> nn.Parameter | None:
        return self.base.bias

    def low_ranks(self) -> dict[int, LowRank]:
        """Return what is added, by the adapters' places."""
        return {int(index): low_rank for index, low_rank in self.added.items()}  # pyright: ignore[reportReturnType]

    def forward(self, input: Tensor) -> Tensor:
        y, chosen = self.base(input), self.adapters.chosen
        for index, low_rank in self.low_ranks().items():
            rows = (chosen or ()).count(index)
            if rows == len(input) if chosen else index == 0:
                y = y + low_rank(input)
            elif rows:
                place = self.adapters.places(index, y.device)
                y = y.index_copy(0, place, y[place] + low_rank(input[place]))
        return y


def base_of(layer: nn.Module) -> nn.Module:
    """Return a linear layer without what adapters add."""
    return layer.base if type(layer) is AdaptedLinear else layer
