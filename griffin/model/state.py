"""The memory of a Griffin model: a value of fixed size that goes into a call and comes out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from griffin import ops
from griffin.model.config import GriffinConfig

FORMAT = "griffin-state"
VERSION = "1"


class RecurrentState(NamedTuple):
    """What a recurrent block remembers."""

    conv: Tensor  # (B, W-1, E)  the last inputs of the convolution, oldest first
    lru: Tensor  # (B, E)  float32 whatever the model's dtype


class AttentionState(NamedTuple):
    """What a local attention block remembers: position p of the document lives in slot p mod S."""

    k: Tensor  # (B, S, K, H)  keys, already rotated
    v: Tensor  # (B, S, K, H)


LayerState = RecurrentState | AttentionState


class State:
    """Everything a model remembers of B sequences: `pos` and one entry a layer.

    pos:    (B,) int64, tokens of the current document read so far.
    layers: a tuple of RecurrentState and AttentionState.
    A state is a value: calls leave it as it is, unless it is given to them with `donate=True`; a
    donated state raises RuntimeError when it is used again.
    """

    __slots__ = ("_layers", "_pos")

    def __init__(self, pos: Tensor, layers: Sequence[LayerState]) -> None:
        self._pos: Tensor | None = pos
        self._layers: tuple[LayerState, ...] | None = tuple(layers)

    @property
    def pos(self) -> Tensor:
        if self._pos is None:
            raise RuntimeError(_DONATED)
        return self._pos

    @property
    def layers(self) -> tuple[LayerState, ...]:
        if self._layers is None:
            raise RuntimeError(_DONATED)
        return self._layers

    def consume(self) -> tuple[Tensor, tuple[LayerState, ...]]:
        """Return pos and layers and mark this state as used up."""
        parts = self.pos, self.layers
        self._pos = self._layers = None
        return parts

    @classmethod
    def zeros(
        cls,
        config: GriffinConfig,
        batch: int = 1,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> State:
        """Return the state of `batch` sequences of which nothing has been read.

        dtype is the model's: of the convolution's inputs, keys and values. The recurrence's state
        is float32 (float64 for a float64 model).
        """
        # In large pages, which a token's attention reads sooner.
        if torch.device(device).type == "cpu":
            state = cls.zeros(config, batch, dtype=dtype, device="meta")
            each = [state.pos, *(t for layer in state.layers for t in layer)]
            made = iter(ops.zeros_together(each))
            return state.map(lambda _: next(made))
        wide = torch.promote_types(dtype, torch.float32)

        def zeros(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.zeros(batch, *shape, dtype=dtype, device=device)

        layers: list[LayerState] = []
        for kind in config.block_types:
            if kind == "recurrent":
                conv = zeros(config.conv_width - 1, config.lru_width)
                layers.append(RecurrentState(conv, zeros(config.lru_width, dtype=wide)))
            else:
                ring = (config.attention_window_size, config.num_kv_heads, config.head_dim)
                layers.append(AttentionState(zeros(*ring), zeros(*ring)))
        return cls(torch.zeros(batch, dtype=torch.int64, device=device), layers)

    @property
    def batch(self) -> int:
        """B, the number of sequences."""
        return self.pos.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of memory in all layers; the 8-byte position of each row is not counted."""
        return sum(t.nbytes for layer in self.layers for t in layer)

    def map(self, fn: Callable[[Tensor], Tensor]) -> State:
        """Return the state with `fn` applied to every tensor, `pos` included."""
        return State(fn(self.pos), [type(layer)(*map(fn, layer)) for layer in self.layers])

    def select(self, rows: Tensor | Sequence[int]) -> State:
        """Return a copy of the given rows, in that order and as often as named."""
        index = torch.as_tensor(rows, dtype=torch.int64, device=self.pos.device)
        return self.map(lambda t: t.index_select(0, index))

    def clone(self) -> State:
        """Return a copy that shares nothing."""
        return self.map(torch.Tensor.clone)

    def to(self, device: torch.device | str) -> State:
        """Return the state on another device."""
        return self.map(lambda t: t.to(device))

    @staticmethod
    def cat(states: Sequence[State]) -> State:
        """Return the rows of several states of one model as one."""
        if not states:
            raise ValueError("State.cat needs at least one state")
        shapes = {tuple((type(x), *(t.shape[1:] for t in x)) for x in s.layers) for s in states}
        if len(shapes) > 1:
            raise ValueError("states of different models cannot be joined")
        columns = zip(*(s.layers for s in states), strict=True)
        layers = [type(column[0])(*map(torch.cat, zip(*column, strict=True))) for column in columns]
        return State(torch.cat([s.pos for s in states]), layers)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state as safetensors for its owner only; a reader never sees half a file.

        A ring that has not filled its window is stored only as far as it reaches.
        """
        tensors = {"pos": self.pos}
        longest = int(self.pos.max()) if self.batch else 0
        slots = 0
        for number, layer in enumerate(self.layers):
            for name, tensor in zip(layer._fields, layer, strict=True):
                if isinstance(layer, AttentionState):
                    slots = tensor.shape[1]
                    tensor = tensor[:, :longest]
                tensors[f"{name}.{number}"] = tensor.detach().cpu().contiguous()
        tensors["pos"] = self.pos.cpu()
        target = Path(path)
        handle, beside = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name}.", suffix=".part"
        )
        os.close(handle)
        try:
            save_file(tensors, beside, {"format": FORMAT, "version": VERSION, "slots": str(slots)})
            Path(beside).chmod(0o600)
            Path(beside).replace(target)
        finally:
            Path(beside).unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> State:
        """Read a state that `save` wrote. A torn or foreign file is a ValueError that names it."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
        if (
            metadata.get("format") != FORMAT
            or metadata.get("version") != VERSION
            or "pos" not in tensors
        ):
            raise ValueError(
                f"{path} is not a griffin state (version {VERSION}); its metadata is {metadata}"
            )
        slots = int(metadata["slots"])
        layers: list[LayerState] = []
        while (number := len(layers)) < (len(tensors) - 1) // 2:
            if f"lru.{number}" in tensors and f"conv.{number}" in tensors:
                layers.append(RecurrentState(tensors[f"conv.{number}"], tensors[f"lru.{number}"]))
            elif f"k.{number}" in tensors and f"v.{number}" in tensors:
                layers.append(
                    AttentionState(*(_widen(tensors[f"{x}.{number}"], slots) for x in "kv"))
                )
            else:
                raise ValueError(f"{path} lacks the tensors of layer {number}")
        return cls(tensors["pos"], layers).to(device)

    def __repr__(self) -> str:
        if self._pos is None:
            return "State(donated)"
        return f"State(pos={self.pos.tolist()}, layers={len(self.layers)}, nbytes={self.nbytes:,})"


def _widen(ring: Tensor, slots: int) -> Tensor:
    """Give a ring that was stored only as far as it reached its empty slots back."""
    full = ring.new_zeros(ring.shape[0], slots, *ring.shape[2:])
    full[:, : ring.shape[1]] = ring
    return full


_DONATED = (
    "this state was donated to a call and is gone; use the state that the call returned, or pass "
    "donate=False (or state.clone()) to keep it"
)
