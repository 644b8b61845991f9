"""The memory of a Griffin model: a value of fixed size that goes into a call and comes out."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from griffin import ops
from griffin.model.config import GriffinConfig
from griffin.model.state_shape import AttentionState, LayerState, RecurrentState, StateShape
from griffin.ops.positions import WHOLE
from griffin.outputs import file_to_write

FORMAT = "griffin-state"
VERSION = "1"
# Bytes of one row that we are willing to build for a file that only vouches for itself: 40 times
# that of a 9B.
_LARGEST_ROW = 1 << 30

__all__ = ["AttentionState", "LayerState", "RecurrentState", "State", "StateShape"]


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

    @staticmethod
    def is_one(given: object) -> TypeGuard[State]:
        """Return whether a state is given, and not None; ValueError for anything else."""
        if given is not None and not isinstance(given, State):
            raise ValueError(
                f"a state is what a call of the model returned, or None to begin, not {given!r:.80}"
            )
        return given is not None

    def check(self, shape: StateShape | None = None, batch: int | None = None) -> None:
        """Raise ValueError unless all tensors fit together, and a shape and rows where given."""
        shape = StateShape.found(self.layers) if shape is None else shape
        shape.check(self.pos, self.layers, batch=batch)

    def map(self, fn: Callable[[Tensor], Tensor]) -> State:
        """Return the state with `fn` applied to every tensor, `pos` included."""
        return State(fn(self.pos), [type(layer)(*map(fn, layer)) for layer in self.layers])

    def select(self, rows: Tensor | Sequence[int]) -> State:
        """Return a copy of the given rows, in that order and as often as named.

        rows: of the host; a tensor that lies elsewhere is waited for, to look at it.
        Raises ValueError for a row there is not, and for a state whose tensors do not fit together.
        """
        self.check()
        index = torch.as_tensor(rows)
        if not index.numel():
            index = index.long()
        if index.dim() != 1 or index.dtype not in WHOLE:
            raise ValueError(f"rows must be whole numbers, not {index.dtype} {tuple(index.shape)}")
        index = index.long()
        named = () if index.is_meta else index.tolist() if isinstance(rows, Tensor) else rows
        if any(not 0 <= row < self.batch for row in named):
            raise ValueError(f"the state has rows 0 to {self.batch - 1}; asked for {rows}")
        if index.device != self.pos.device:
            index = ops.pinned(index, self.pos.device).to(self.pos.device, non_blocking=True)
        return self.map(lambda t: t.index_select(0, index))

    def clone(self) -> State:
        """Return a copy that shares nothing."""
        return self.map(torch.Tensor.clone)

    def to(self, device: torch.device | str) -> State:
        """Return the state on another device."""
        return self.map(lambda t: t.to(device))

    @staticmethod
    def cat(states: Sequence[State]) -> State:
        """Return the rows of several states of one model, and on one device, as one."""
        if not states:
            raise ValueError("State.cat needs at least one state")
        for state in states:
            state.check()
        if len({StateShape.found(state.layers) for state in states}) > 1:
            raise ValueError("states of different models or types cannot be joined")
        if len(devices := {state.pos.device for state in states}) > 1:
            raise ValueError(
                f"states on {', '.join(map(str, devices))} cannot be joined; move them"
            )
        columns = zip(*(s.layers for s in states), strict=True)
        layers = [type(column[0])(*map(torch.cat, zip(*column, strict=True))) for column in columns]
        return State(torch.cat([s.pos for s in states]), layers)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state as safetensors for its owner only; a reader never sees half a file.

        A ring that has not filled its window is stored only as far as it reaches. Raises ValueError
        for a state whose tensors do not fit together.
        """
        self.check()
        tensors = {"pos": self.pos}
        longest = int(self.pos.max()) if self.batch else 0
        slots = 0
        for number, layer in enumerate(self.layers):
            for name, tensor in zip(layer._fields, layer, strict=True):
                if isinstance(layer, AttentionState):
                    slots = tensor.shape[1]
                    tensor = tensor[:, :longest]
                # Copies: layers that share memory are stored apart.
                tensors[f"{name}.{number}"] = (
                    tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                )
        tensors["pos"] = self.pos.cpu()
        target = file_to_write(path)
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
        """Read a state that `save` wrote.

        A torn or foreign file, and one whose tensors do not fit together, is a ValueError that
        names it. No row of a file's state may take more than 1 GiB.
        """
        metadata, tensors = _read(Path(path))
        try:
            pos, layers = _assemble(metadata, tensors)
            state = cls(pos, layers)
            state.check()
        except ValueError as error:
            raise ValueError(f"{path} is no state that was saved here: {error}") from None
        return state.to(device)

    def __repr__(self) -> str:
        if self._pos is None:
            return "State(donated)"
        return f"State(pos={self.pos.tolist()}, layers={len(self.layers)}, nbytes={self.nbytes:,})"


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the metadata and the tensors of a state's file."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            # After a header of odd length values lie where a processor may not read them.
            tensors = {
                name: t.clone() if t.data_ptr() % t.itemsize else t for name, t in tensors.items()
            }
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise ValueError(
            f"{path} is not a griffin state (version {VERSION}); its metadata is {metadata!s:.200}"
        )
    return metadata, tensors


def _assemble(
    metadata: dict[str, str], tensors: dict[str, Tensor]
) -> tuple[Tensor, list[LayerState]]:
    """Return pos and the layers of a file, rings in their full width; ValueError if they are not
    of one model."""
    tensors, slots = dict(tensors), metadata.get("slots", "")
    if not slots.isdecimal() or len(slots) > 18:
        raise ValueError(f"its rings have {slots[:20]!r} slots")
    pos, layers = tensors.pop("pos", None), []
    if pos is None:
        raise ValueError("it has no pos")
    while tensors:
        found = None
        for kind in (RecurrentState, AttentionState):
            names = [f"{name}.{len(layers)}" for name in kind._fields]
            if all(name in tensors for name in names):
                found = kind(*(tensors.pop(name) for name in names))
        if found is None:
            names = ", ".join(sorted(tensors)[:4])
            raise ValueError(f"it lacks the tensors of layer {len(layers)}, and has {names}")
        layers.append(found)
    # What is stored is looked at before the rings are widened: as they are they fit together.
    StateShape.found(layers).check(pos, layers)
    reach = min(int(pos.max()), int(slots)) if len(pos) else 0
    rings = [layer for layer in layers if isinstance(layer, AttentionState)]
    for ring in rings:
        if ring.k.shape[1] != (reach if len(pos) else 0) or not int(slots):
            raise ValueError(
                f"its rings of {slots} slots hold {ring.k.shape[1]} positions; at its pos they"
                f" hold {reach}"
            )
    row = 2 * sum(math.prod(ring.k.shape[2:]) * ring.k.itemsize for ring in rings)
    if row * int(slots) > _LARGEST_ROW:
        raise ValueError(f"rings of {slots} slots take more than {_LARGEST_ROW} bytes a row")
    return pos, [
        AttentionState(*(_widen(t, int(slots)) for t in layer))
        if isinstance(layer, AttentionState)
        else layer
        for layer in layers
    ]


def _widen(ring: Tensor, slots: int) -> Tensor:
    """Give a ring that was stored only as far as it reached its empty slots back."""
    try:
        full = ring.new_zeros(ring.shape[0], slots, *ring.shape[2:])
    except (RuntimeError, MemoryError):
        raise ValueError(f"{ring.shape[0]} rings of {slots} slots find no room") from None
    full[:, : ring.shape[1]] = ring
    return full


_DONATED = (
    "this state was donated to a call and is gone; use the state that the call returned, or pass "
    "donate=False (or state.clone()) to keep it"
)
