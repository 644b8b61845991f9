"""The tiles of a cross-entropy: some tokens by some of the vocabulary, of a head that is a matrix
or packed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from griffin import ops
from griffin.ops import Packed
from griffin.ops.packed_linear import PANEL

# Weights of a packed head that are unpacked at once: 16 MB in float32.
UNPACKED = 4_194_304


class Tiles:
    """Of flat hidden states (N, D) and a head (V, D).

    dtype:       of the products. The logits of a packed head are the engine's, in the type that the
                 hidden states have.
    tile:        the most entries of logits that exist at a time.
    vocab_block: the most columns of one tile.
    """

    def __init__(
        self,
        hidden: Tensor,
        head: Tensor | Packed,
        soft_cap: float,
        dtype: torch.dtype,
        tile: int,
        vocab_block: int,
    ) -> None:
        self.hidden, self.soft_cap, self.dtype = hidden.detach(), soft_cap, dtype
        self.head = head if isinstance(head, Packed) else head.detach()
        self.wide = torch.promote_types(hidden.dtype, torch.float32)
        columns = min(head_shape(head)[0], vocab_block, tile)
        if isinstance(head, Packed):
            # Whole panels, so few of them that what is unpacked of them stays small.
            columns = min(columns, UNPACKED // head.in_features) // PANEL * PANEL
            columns = max(columns, PANEL)
        self.columns = max(1, columns)
        self.rows = max(1, tile // self.columns)

    @property
    def whole(self) -> bool:
        """Return whether all of the vocabulary is in one tile."""
        return self.columns >= head_shape(self.head)[0]

    def each(self) -> Iterator[tuple[slice, Tensor, _Part]]:
        """Yield which tokens a tile is of, their hidden states, and its part of the head."""
        packed = isinstance(self.head, Packed)
        hidden = self.hidden if packed else self.hidden.to(self.dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            for columns in _blocks(head_shape(self.head)[0], self.columns):
                part = _Part(self.head, columns, self.dtype)
                for place in _blocks(hidden.shape[0], self.rows):
                    yield place, hidden[place], part

    def logits(self, block: Tensor, part: _Part) -> Tensor:
        """Return a tile's capped logits."""
        if part.packed is None:
            logits = (block @ part.weight.T).to(self.wide)
        else:
            logits = ops.packed_linear(block, part.packed, None, self.wide)
        if self.soft_cap:
            logits.div_(self.soft_cap).tanh_().mul_(self.soft_cap)
        return logits

    def sums(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `add_to_sums` adds to: of nothing -inf, and zeros, both (N,)."""
        total = torch.full(targets.shape, -torch.inf, dtype=self.wide, device=targets.device)
        return total, torch.zeros_like(total)

    def zeros(self, hidden: bool, weight: bool) -> tuple[Tensor | None, Tensor | None]:
        """Return zeros for the gradients that are wanted."""
        size = head_shape(self.head) if weight else None
        return (
            torch.zeros_like(self.hidden, dtype=self.wide) if hidden else None,
            None if size is None else self.hidden.new_zeros(size, dtype=self.wide),
        )

    def add(
        self,
        gradients: Sequence[Tensor | None],
        place: slice,
        slope: Tensor,
        block: Tensor,
        part: _Part,
    ) -> None:
        """Add what a tile gives to the gradients of hidden states and head."""
        slope = slope.to(self.dtype)
        if gradients[0] is not None:
            _add_product(gradients[0][place], slope, part.weight)
        if gradients[1] is not None:
            _add_product(gradients[1][part.columns], slope.T, block)

    def rows_of(self, targets: Tensor) -> Tensor:
        """Return the head's rows of some targets, (N, D) in float32 or wider."""
        if isinstance(self.head, Packed):
            return ops.look_up(self.head, targets, 1.0, self.wide)
        return self.head[targets].to(self.dtype).to(self.wide)


class _Part:
    """Some rows of a head: as they lie packed, None if they do not, and as a matrix."""

    def __init__(self, head: Tensor | Packed, columns: slice, dtype: torch.dtype) -> None:
        self.columns, self._head, self._dtype = columns, head, dtype
        self.packed: Packed | None = None
        if isinstance(head, Packed):
            panels = slice(columns.start // PANEL, -(-columns.stop // PANEL))
            self.packed = head.panels(panels, columns.stop - columns.start)

    @cached_property
    def weight(self) -> Tensor:
        """The rows in the type of the products; those of a packed head once it is asked for."""
        if self.packed is not None:
            return ops.unpack(self.packed, self._dtype)
        assert isinstance(self._head, Tensor)
        return self._head[self.columns].to(self._dtype)


def head_shape(head: Tensor | Packed) -> tuple[int, int]:
    """Return (V, D) of a head."""
    if isinstance(head, Packed):
        return head.out_features, head.in_features
    vocab, width = head.shape
    return vocab, width


def _add_product(into: Tensor, one: Tensor, other: Tensor) -> None:
    if into.dtype == one.dtype:
        into.addmm_(one, other)
    else:
        into += one @ other


def _blocks(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]
