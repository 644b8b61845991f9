"""What a state is made of, and what all states of one model have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from griffin.model.config import GriffinConfig
from griffin.ops.positions import MOST_POSITIONS, check_reach

__all__ = ["MOST_POSITIONS", "AttentionState", "LayerState", "RecurrentState", "StateShape"]


class RecurrentState(NamedTuple):
    """What a recurrent block remembers."""

    conv: Tensor  # (B, W-1, E)  the last inputs of the convolution, oldest first
    lru: Tensor  # (B, E)  float32 whatever the model's dtype


class AttentionState(NamedTuple):
    """What a local attention block remembers: position p of the document lives in slot p mod S."""

    k: Tensor  # (B, S, K, H)  keys, already rotated
    v: Tensor  # (B, S, K, H)


LayerState = RecurrentState | AttentionState


class RowTensor(NamedTuple):
    """Of one tensor of one layer: what it is called, its type, and its shape in one row."""

    layer: int
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class StateShape:
    """What all states of one model have in common, whatever their rows.

    kinds: of each layer, RecurrentState or AttentionState.
    rows:  of each tensor, in the order of the layers.
    """

    kinds: tuple[type[LayerState], ...]
    rows: tuple[RowTensor, ...]
    # The rows last asked about, and each tensor's type and whole shape then.
    _held: tuple[int | None, list[tuple[torch.dtype, torch.Size]]] = field(
        default=(-1, []), compare=False, repr=False
    )

    @classmethod
    def of(cls, config: GriffinConfig, dtype: torch.dtype) -> StateShape:
        """Return that of a model of this type."""
        wide = torch.promote_types(dtype, torch.float32)
        conv = (dtype, (config.conv_width - 1, config.lru_width))
        ring = (dtype, (config.attention_window_size, config.num_kv_heads, config.head_dim))
        tensors = {
            RecurrentState: (conv, (wide, (config.lru_width,))),
            AttentionState: (ring, ring),
        }
        kinds = tuple(
            RecurrentState if kind == "recurrent" else AttentionState for kind in config.block_types
        )
        rows = (
            RowTensor(number, name, *each)
            for number, kind in enumerate(kinds)
            for name, each in zip(kind._fields, tensors[kind], strict=True)
        )
        return cls(kinds, tuple(rows))

    @classmethod
    def found(cls, layers: Sequence[LayerState]) -> StateShape:
        """Return that of the model these layers come from; ValueError if they come from none.

        Layers of a kind are alike, and lru is float32 unless the rest is float64.
        """
        kinds: list[type[LayerState]] = []
        rows: list[RowTensor] = []
        for number, layer in enumerate(layers):
            kind = type(layer)
            if kind not in (RecurrentState, AttentionState):
                raise ValueError(
                    f"layer {number} is a {kind.__name__}, no RecurrentState or AttentionState"
                )
            kinds.append(kind)
            for name, t in zip(layer._fields, layer, strict=True):
                dimensions = {"conv": 3, "lru": 2}.get(name, 4)
                if t.dim() != dimensions or not t.dtype.is_floating_point:
                    raise ValueError(
                        f"{name} of layer {number} is {t.dtype} {tuple(t.shape)}; expected numbers"
                        f" of {dimensions} dimensions"
                    )
                rows.append(RowTensor(number, name, t.dtype, tuple(t.shape[1:])))
        shape = cls(tuple(kinds), tuple(rows))
        shape._check_itself()
        return shape

    def _check_itself(self) -> None:
        first = {row.name: row for row in reversed(self.rows)}
        for row in self.rows:
            dtype, shape = first[row.name][2:]
            if row.name == "lru" and "conv" in first:
                dtype = torch.promote_types(first["conv"].dtype, torch.float32)
                shape = first["conv"].shape[1:]
            elif row.name in ("k", "v"):
                dtype, shape = first["k"][2:]
                dtype = first["conv"].dtype if "conv" in first else dtype
            if (row.dtype, row.shape) != (dtype, shape):
                raise ValueError(
                    f"{row.name} of layer {row.layer} is {row.dtype} {row.shape} in a row; with the"
                    f" others it would be {dtype} {shape}"
                )

    def check(
        self,
        pos: Tensor,
        layers: Sequence[LayerState],
        *,
        batch: int | None = None,
        device: torch.device | None = None,
        steps: int = 0,
    ) -> None:
        """Raise ValueError unless these are pos and layers of a state of this shape.

        batch:  its rows; as many as `pos` has if omitted.
        device: where it has to be; all in one place if omitted.
        steps:  tokens that are to be read after it.
        """
        batch = pos.shape[0] if batch is None and pos.dim() else batch
        device = pos.device if device is None else device
        if not self._fits(pos, layers, batch, device):
            raise ValueError(self._misfit(pos, layers, batch, device))
        check_reach(pos, steps, "the state's pos")

    def _fits(
        self, pos: Tensor, layers: Sequence[LayerState], batch: int | None, device: torch.device
    ) -> bool:
        """Answer in a step's time whether all is as it should be."""
        if self._held[0] != batch:
            full = [(row.dtype, torch.Size((batch or 0, *row.shape))) for row in self.rows]
            object.__setattr__(self, "_held", (batch, full))
        if tuple(map(type, layers)) != self.kinds:
            return False
        cpu = device.type == "cpu"
        held = iter(self._held[1])
        for layer in layers:
            for t in layer:
                dtype, shape = next(held)
                if t.dtype is not dtype or t.shape != shape:
                    return False
                if not (t.is_cpu if cpu else t.device == device):
                    return False
        return pos.dtype is torch.int64 and pos.shape == (batch,) and pos.device == device

    def _misfit(
        self, pos: Tensor, layers: Sequence[LayerState], batch: int | None, device: torch.device
    ) -> str:
        """Return what does not fit."""
        if pos.dim() != 1 or pos.dtype != torch.int64:
            return f"the state's pos is {pos.dtype} {tuple(pos.shape)}, not int64 (B,)"
        if pos.shape[0] != batch or len(layers) != len(self.kinds):
            return (
                f"a state of {pos.shape[0]} rows and {len(layers)} layers does not fit tokens of"
                f" {batch} rows and a model of {len(self.kinds)} layers"
            )
        for number, (layer, kind) in enumerate(zip(layers, self.kinds, strict=True)):
            if type(layer) is not kind:
                return (
                    f"a state whose layer {number} is {type(layer).__name__} does not fit a model"
                    f" whose layer is {kind.__name__}"
                )
        for t, row in zip((t for layer in layers for t in layer), self.rows, strict=True):
            if t.dtype != row.dtype or t.shape != (batch, *row.shape):
                return (
                    f"a state whose {row.name} of layer {row.layer} is {t.dtype} {tuple(t.shape)}"
                    f" does not fit: it has to be {row.dtype} {(batch, *row.shape)}"
                )
            if t.device != device:
                return (
                    f"{row.name} of layer {row.layer} of the state lies on {t.device}, not on"
                    f" {device}; state.to(device) moves it"
                )
        return f"the state's pos lies on {pos.device}, not on {device}; state.to(device) moves it"
