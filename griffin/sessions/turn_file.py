"""A turn's file: the recurrent part after it, and the keys and values of the tokens it added.

Written once and never changed. The rest of a state's window lies in the files of the turns before,
so that branches and forks share it, and a turn costs 0.46 MB and 8 KB for each of its tokens at 2B,
not 17 MB.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise

import torch
from torch import Tensor

from griffin.engine.pieces import cut_recurrent, cut_span, ring_runs, unwritten, window
from griffin.model import AttentionState, GriffinConfig, RecurrentState, State, StateShape
from griffin.sessions.errors import StateTorn
from griffin.sessions.folder import Folder
from griffin.sessions.tensor_file import PackedFile, Spec, TensorFile, memory_of, pack
from griffin.sessions.turn import Blob

FORMAT = "griffin-turn"
VERSION = "1"


def check_state(state: State, config: GriffinConfig, dtype: torch.dtype, pos: int) -> None:
    """Raise ValueError unless a state is one row of such a model after `pos` tokens, all finite."""
    wanted = State.zeros(config, 1, dtype=dtype, device="meta")
    if len(state.layers) != len(wanted.layers):
        raise ValueError(
            f"the state has {len(state.layers)} layers, the session's model {config.num_layers}"
        )
    for number, (layer, like) in enumerate(zip(state.layers, wanted.layers, strict=True)):
        found = [(tuple(t.shape), t.dtype) for t in layer]
        expected = [(tuple(t.shape), t.dtype) for t in like]
        if type(layer) is not type(like) or found != expected:
            raise ValueError(
                f"layer {number} of the state is {type(layer).__name__} {found}; "
                f"the session's model has {type(like).__name__} {expected}"
            )
    state.check(StateShape.of(config, dtype), batch=1)
    if int(state.pos[0]) != pos:
        raise ValueError(
            f"the state is at position {int(state.pos[0])}; with the tokens of this turn, less"
            f" those that are pending, it would be at {pos}"
        )


def pieces(state: State, start: int) -> dict[str, Tensor]:
    """Cut out what a turn keeps, keys and values from `start` on; ValueError if not finite."""
    recurrent, span = cut_recurrent(state), cut_span(state, start, int(state.pos[0]))
    tensors = {"conv": recurrent.conv, "lru": recurrent.lru, "k": span.k, "v": span.v}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor.numel()}
    check_finite(tensors)
    return tensors


def check_finite(tensors: Mapping[str, Tensor], most: float = math.inf) -> None:
    """Raise ValueError for NaN and infinity: whatever would be read after them is lost.

    most: refuse larger numbers, too, of either sign.
    """
    for name, tensor in tensors.items():
        # NaN and infinity are both seen in the extremes: twenty times as fast as looking at each
        # number.
        if not tensor.numel():
            continue
        extremes = torch.stack(torch.aminmax(tensor))
        if not extremes.isfinite().all():
            raise ValueError(f"the state's {name} holds NaN or infinity; such a state is not kept")
        if float(extremes.abs().max()) > most:
            raise ValueError(f"the state's {name} holds numbers beyond {most:g}")


def pack_turn(tensors: dict[str, Tensor], start: int, pos: int, chain: str) -> PackedFile:
    """Lay out a turn's file from its pieces."""
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "start": str(start),
        "pos": str(pos),
        "chain": chain,
    }
    return pack(tensors, metadata)


def read_state(
    folder: Folder, blobs: Sequence[Blob], config: GriffinConfig, dtype: torch.dtype
) -> State:
    """Put the state after a turn together from files.

    blobs: the turn's, then those of the turns before it, as many as the window reaches back.
    Raises StateTorn, naming the file, if one is missing, altered, or not the one the index means.
    """
    head, oldest = blobs[0], blobs[-1]
    first = window(config, head.pos).start
    gaps = any(newer.start != older.pos for newer, older in pairwise(blobs))
    if gaps or oldest.start > first:
        raise StateTorn(f"the index of {folder} lacks turns that the state after one of them needs")
    # Bytes go from the files to where they belong; a window of small turns has a hundred of them.
    state = unwritten(config, head.pos, dtype)
    recurrent = [layer for layer in state.layers if isinstance(layer, RecurrentState)]
    rings = [layer for layer in state.layers if isinstance(layer, AttentionState)]
    memory = {
        "k": [memory_of(ring.k) for ring in rings],
        "v": [memory_of(ring.v) for ring in rings],
    }
    # Bytes of a position in each of them.
    width = config.num_kv_heads * config.head_dim * dtype.itemsize
    for number, blob in enumerate(blobs):
        assert blob.name is not None
        with folder.read(blob.name) as file:
            _recognise(file, blob, config, dtype)
            for name in ("conv", "lru") if number == 0 else ():
                if name in file.specs:
                    file.read_into(name, [memory_of(getattr(layer, name)) for layer in recurrent])
            if "k" in file.specs:
                start = max(blob.start, first)
                runs = [
                    slice(slot * width, (slot + count) * width)
                    for _, slot, count in ring_runs(start, blob.pos, config.attention_window_size)
                ]
                for name, layers in memory.items():
                    places = [[layer[run] for run in runs] for layer in layers]
                    # What the window has left behind is read for its checksum only.
                    if blob.start < start:
                        for layer in places:
                            layer.insert(0, memoryview(bytearray((start - blob.start) * width)))
                    file.read_into(name, list(chain(*places)))
    return state


def verify(folder: Folder, blob: Blob, config: GriffinConfig, dtype: torch.dtype) -> None:
    """Read all of a turn's file and raise StateTorn if anything is wrong with it."""
    assert blob.name is not None
    with folder.read(blob.name) as file:
        _recognise(file, blob, config, dtype)
        for name in file.specs:
            file.read(name)


def expected(config: GriffinConfig, dtype: torch.dtype, start: int, pos: int) -> dict[str, Spec]:
    """Return the tensors of a turn's file; a model has only those of its kinds of layers."""
    wide = torch.promote_types(dtype, torch.float32)
    specs: dict[str, Spec] = {}
    if count := config.block_types.count("recurrent"):
        specs["lru"] = Spec(wide, (count, config.lru_width))
        if config.conv_width > 1:
            specs["conv"] = Spec(dtype, (count, config.conv_width - 1, config.lru_width))
    if (count := config.block_types.count("attention")) and pos > start:
        shape = (count, pos - start, config.num_kv_heads, config.head_dim)
        specs["k"] = specs["v"] = Spec(dtype, shape)
    return specs


def first_kept(config: GriffinConfig, pos: int, before: int) -> int:
    """Return the first position that a turn's file holds: its own, as far as the window reaches.

    pos:    position after the turn.
    before: position after the turn before it, 0 if there is none.
    """
    return max(before, window(config, pos).start)


def _recognise(file: TensorFile, blob: Blob, config: GriffinConfig, dtype: torch.dtype) -> None:
    meant = {"start": str(blob.start), "pos": str(blob.pos), "chain": blob.chain}
    said = {key: file.metadata.get(key) for key in meant}
    if file.metadata.get("format") != FORMAT or file.metadata.get("version") != VERSION:
        raise file.torn(f"its format is {file.metadata.get('format')!r:.100}, expected {FORMAT!r}")
    if said != meant or file.digest != blob.digest:
        raise file.torn("it is whole, but not the file that was written for this turn")
    file.require(expected(config, dtype, blob.start, blob.pos))
