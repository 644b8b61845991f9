"""A packed matrix, how a layout is described, and the order that all layouts share.

A panel is 16 output rows. Within it inputs follow each other a few at a time, those of all 16 rows
side by side: a thread that has a run of panels reads one sequential stream. Rows are padded to 16,
inputs to whole units of the layout, with what stands for zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from griffin.ops.packed_linear.memory import allocate, unmap

PANEL = 16
SLICE = 4096  # output rows converted at once, so that packing needs little memory of its own


class Packed(NamedTuple):
    """A weight matrix (O, I) in one of the LAYOUTS."""

    data: Tensor  # (panels, bytes of a panel) uint8
    scale: Tensor | None  # (O,) float32, padded to whole panels with zeros; None without row scales
    format: str
    out_features: int
    in_features: int
    low: Tensor | None = None  # (panels, bytes) uint8: int3's lowest bits; None in other formats

    @property
    def nbytes(self) -> int:
        """Bytes that a product reads."""
        return sum(t.nbytes for t in (self.data, self.scale, self.low) if t is not None)

    def panels(self, which: slice | Tensor, out_features: int) -> Packed:
        """Return the matrix that some panels make, with so many rows."""
        scale = None if self.scale is None else self.scale.view(-1, PANEL)[which].flatten()
        low = None if self.low is None else self.low[which]
        return self._replace(data=self.data[which], scale=scale, low=low, out_features=out_features)

    def unmapped(self) -> Packed:
        """Return a copy in large pages, which are read faster than a mapped file."""
        scale = None if self.scale is None else self.scale.clone()
        low = None if self.low is None else unmap(self.low)
        return self._replace(data=unmap(self.data), scale=scale, low=low)

    def to(self, device: torch.device | str) -> Packed:
        """Return the weights on another device."""
        scale = None if self.scale is None else self.scale.to(device)
        low = None if self.low is None else self.low.to(device)
        return self._replace(data=self.data.to(device), scale=scale, low=low)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the matrices of a format lie in memory, and what a product makes of its activations.

    name:             of the format, also in griffin.quant.FORMATS.
    number:           of the format in native/kernels.h.
    unit_inputs:      inputs of a unit, which holds them for the 16 rows of a panel.
    unit_bytes:       bytes of a unit.
    row_scales:       whether each output row has a float32 scale, beside the panels.
    whole_numbers:    whether a weight is a whole number times a scale: it was rounded, and products
                      are of integers.
    activation_group: inputs whose activations are rounded to 8 bits together; None: they are not.
    pack:             weights (O, I) -> Packed, each rounded to the nearest value of the format.
    unpack:           (data of some panels; the scales of their rows, or their lowest bits, or None)
                      -> (rows, padded inputs) float32.
    low_bytes:        of a unit, bytes of lowest bits that lie apart.
    """

    name: str
    number: int
    unit_inputs: int
    unit_bytes: int
    row_scales: bool
    whole_numbers: bool
    activation_group: int | None
    pack: Callable[[Tensor], Packed]
    unpack: Callable[[Tensor, Tensor | None], Tensor]
    low_bytes: int = 0

    def data_shape(self, out_features: int, in_features: int) -> tuple[int, int]:
        """Return (panels, bytes of a panel) of a matrix."""
        units = -(-in_features // self.unit_inputs)
        return -(-out_features // PANEL), units * self.unit_bytes

    def low_shape(self, out_features: int, in_features: int) -> tuple[int, int]:
        """Return (panels, bytes) of a matrix's lowest bits where they lie apart."""
        panels, each = self.data_shape(out_features, in_features)
        return panels, each // self.unit_bytes * self.low_bytes

    def nbytes(self, out_features: int, in_features: int) -> int:
        """Return the bytes of a matrix, with its scales and lowest bits."""
        panels, each = self.data_shape(out_features, in_features)
        low = self.low_shape(out_features, in_features)[1]
        return panels * (each + low + (PANEL * 4 if self.row_scales else 0))


def pad(rows: Tensor, unit: int, value: int) -> Tensor:
    """Pad rows to whole panels and inputs to a multiple of `unit`."""
    return functional.pad(rows, (0, -rows.shape[1] % unit, 0, -rows.shape[0] % PANEL), value=value)


def interleave(words: Tensor) -> Tensor:
    """(rows, words) int32 -> (panels, bytes): word k of 16 rows, then word k + 1."""
    turned = words.unflatten(0, (-1, PANEL)).transpose(1, 2).contiguous()
    return turned.view(torch.uint8).flatten(1)


def separate(data: Tensor) -> Tensor:
    """(panels, bytes) -> (panels, 16, words) int32."""
    turned = data.contiguous().view(torch.int32).unflatten(1, (-1, PANEL)).transpose(1, 2)
    # With the strides of a new tensor, so that one of a single word can be viewed as bytes too.
    return turned.clone(memory_format=torch.contiguous_format)


def in_slices(rows: Tensor, shape: tuple[int, int], panels: Callable[[slice], Tensor]) -> Tensor:
    """Return data of `shape`, made of some rows at a time on the device of `rows`."""
    on_cpu = rows.device.type == "cpu"
    out = allocate(shape) if on_cpu else torch.empty(*shape, dtype=torch.uint8, device=rows.device)
    for first in range(0, rows.shape[0], SLICE):
        out[first // PANEL : (first + SLICE) // PANEL] = panels(slice(first, first + SLICE))
    return out
