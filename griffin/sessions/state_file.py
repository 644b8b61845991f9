"""One state in one file, `*.state.safetensors`; any safetensors library reads it.

Metadata, all strings: format, version, fingerprint and config (JSON), tokens_seen, pos,
token_chain_hash, pending_ids (JSON), created, parent, title, turns (JSON). Tensors: `rg_lru.N`,
`conv.N` of the recurrent layers; `k.N`, `v.N` of the attention layers, the window's positions,
oldest first; `ids`, those of all turns one after another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from griffin.engine.pieces import RecurrentPart, Span, cut_recurrent, cut_span, join, window
from griffin.model import GriffinConfig, State
from griffin.model.state_shape import MOST_POSITIONS
from griffin.outputs import file_to_write
from griffin.sessions.disk import write_durably
from griffin.sessions.errors import SessionError, UnknownSession
from griffin.sessions.fingerprint import Fingerprint
from griffin.sessions.state_info import StateInfo, TurnRecord, count_of
from griffin.sessions.tensor_file import PackedFile, Spec, TensorFile, pack
from griffin.sessions.turn_file import check_finite, check_state

FORMAT = "griffin-portable-state"
VERSION = "1"
# Bytes of a state we are willing to build for a file that only vouches for itself.
_LARGEST = 1 << 30
_ROOM = 1 << 40  # tokens that may still follow a state
_MOST = 1e9  # of a number: far beyond any that a model makes, and far from where sums overflow


def save_state_file(path: str | Path, info: StateInfo, state: State | None) -> int:
    """Write a state file of mode 0600, whole or not at all, in place of any file of that name.

    Returns the bytes written. Arguments and errors as for `pack_state`; StorageFull without room.
    """
    packed = pack_state(info, state)
    write_durably(file_to_write(path), packed.chunks)
    return packed.nbytes


def pack_state(info: StateInfo, state: State | None) -> PackedFile:
    """Return a state file that is ready to be written.

    state: one row that has read everything but `info.pending`; None if that is nothing.
    Raises ValueError for a state that does not fit `info`.
    """
    config, dtype = info.config, info.fingerprint.torch_dtype
    read = info.tokens - len(info.pending)
    if state is not None:
        state.check(batch=1)
    pos = int(state.pos[0]) if state is not None else 0
    if (state is None) != (read == 0):
        raise ValueError(
            f"of {info.tokens} tokens {len(info.pending)} are pending; the state must have read the"
            " rest"
        )
    tensors: dict[str, Tensor] = {}
    if state is not None:
        if pos > info.fingerprint.position(0, read):
            raise ValueError(f"the state is at position {pos}, after {read} tokens")
        check_state(state, config, dtype, pos)
        tensors = _layers(state, config, pos)
        check_finite(tensors)
    ids = [i for turn in info.turns for i in turn.ids]
    if ids:
        tensors["ids"] = torch.tensor(ids, dtype=torch.int32)
    turns = [
        {
            "role": t.role,
            "text": t.text,
            "ids": len(t.ids),
            "tokens": t.tokens,
            "chain": t.chain,
            "created": t.created,
        }
        for t in info.turns
    ]
    return pack(
        tensors,
        {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": json.dumps(info.fingerprint.to_dict()),
            "config": json.dumps(config.to_dict()),
            "tokens_seen": str(read),
            "pos": str(pos),
            "token_chain_hash": info.chain,
            "pending_ids": json.dumps(info.pending),
            "created": repr(info.created),
            "parent": info.parent,
            "title": info.title,
            "model": info.model,
            "turns": json.dumps(turns),
        },
    )


def load_state_file(
    path: str | Path, fingerprint: Fingerprint | None = None
) -> tuple[StateInfo, State | None]:
    """Read a state file and check all of it before any of it is used.

    fingerprint: the model's that is to go on with it; a difference is a StateMismatch that names
                 the parts. Without one the file need only agree with itself.
    Returns what it says and the state, on the CPU; None if nothing has been read yet.
    Raises UnknownSession if there is no such file, and StateTorn for one that is torn, foreign, of
    another shape than its config says, or not finite.
    """
    with _open(path) as file:
        return _load(file, fingerprint, math.inf)


def unpack_state(
    data: bytes, what: str, fingerprint: Fingerprint
) -> tuple[StateInfo, State | None]:
    """Read a state file that lies in memory, as `load_state_file`. what: its name in errors.

    Also refuses one that nothing, or next to nothing, could follow.
    """
    with TensorFile(Path(what), data) as file:
        info, state = _load(file, fingerprint, _MOST)
        if info.tokens > MOST_POSITIONS - _ROOM:
            raise file.torn(f"it says that {info.tokens} tokens were read")
    return info, state


def _load(
    file: TensorFile, fingerprint: Fingerprint | None, most: float
) -> tuple[StateInfo, State | None]:
    info, pos = _info(file, fingerprint)
    if info.tokens == len(info.pending):
        return info, None
    config, dtype = info.config, info.fingerprint.torch_dtype
    if fingerprint is None and State.zeros(config, 1, dtype=dtype, device="meta").nbytes > _LARGEST:
        raise file.torn(
            f"its state would take more than {_LARGEST} bytes; name the model it belongs to"
        )
    tensors = {name: file.read(name) for name in file.specs if name != "ids"}
    try:
        check_finite(tensors, most)
    except ValueError as error:
        raise file.torn(str(error)) from None
    recurrent, span = _parts(tensors, config, dtype, pos)
    return info, join(config, pos, recurrent, [span], dtype)


def read_state_info(path: str | Path) -> StateInfo:
    """Return what a state file says of itself, without its state; as `load_state_file`."""
    with _open(path) as file:
        return _info(file, None)[0]


def _open(path: str | Path) -> TensorFile:
    path = Path(path)
    if not path.exists():
        raise UnknownSession(f"there is no state file {path}")
    return TensorFile(path)


def _info(file: TensorFile, fingerprint: Fingerprint | None) -> tuple[StateInfo, int]:
    """Read and check everything but the layers' numbers; return it and the state's position."""
    said = file.metadata
    if said.get("format") != FORMAT or said.get("version") != VERSION:
        raise file.torn(
            f"its format is {said.get('format')!r:.100}, version {said.get('version')!r:.20}; "
            f"expected {FORMAT!r}, version {VERSION!r}"
        )
    try:
        own = Fingerprint.from_dict(_object(said["fingerprint"]))
        if fingerprint is not None:
            own.require(fingerprint, str(file.path))
        config = GriffinConfig.from_dict(_object(said["config"]))
        pending = json.loads(said["pending_ids"])
        read, pos = int(said["tokens_seen"]), int(said["pos"])
        rows = json.loads(said["turns"])
        if (
            not isinstance(rows, list)
            or not isinstance(pending, list)
            or not 0 <= pos <= min(own.position(0, read), MOST_POSITIONS)
        ):
            raise ValueError("turns, pending ids or positions are not what they should be")
        if (read == 0) != (pos == 0):
            raise ValueError(f"position {pos} after {read} tokens")
        if read and config.num_layers > len(file.specs):
            raise ValueError(f"{config.num_layers} layers in {len(file.specs)} tensors")
        count = sum(count_of(row["ids"]) for row in rows)
        specs = _specs(config, own.torch_dtype, pos) if read else {}
        if count:
            specs["ids"] = Spec(torch.int32, (count,))
        file.require(specs)
        ids = file.read("ids").tolist() if count else []
        info = StateInfo(
            fingerprint=own,
            config=config,
            tokens=read + len(pending),
            chain=said["token_chain_hash"],
            pending=tuple(pending),
            turns=_records(rows, ids),
            parent=said["parent"],
            title=said["title"],
            model=said.get("model", ""),  # files of before December 2026 have none
            created=float(said["created"]),
        )
    except SessionError:
        raise
    except (
        KeyError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RecursionError,
    ) as error:
        raise file.torn(f"its metadata makes no sense ({error!s:.200})") from error
    return info, pos


def _records(rows: list[Any], ids: list[int]) -> tuple[TurnRecord, ...]:
    records: list[TurnRecord] = []
    start = 0
    for row in rows:
        stop = start + row["ids"]
        fields = {key: row[key] for key in ("role", "text", "tokens", "chain", "created")}
        records.append(TurnRecord(ids=tuple(ids[start:stop]), **fields))
        start = stop
    return tuple(records)


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, not {text:.80}")
    return cast(dict[str, Any], value)


def _specs(config: GriffinConfig, dtype: torch.dtype, pos: int) -> dict[str, Spec]:
    """Return the tensors that a file with a state at `pos` holds."""
    wide = torch.promote_types(dtype, torch.float32)
    specs: dict[str, Spec] = {}
    for number, kind in enumerate(config.block_types):
        if kind == "recurrent":
            specs[f"rg_lru.{number}"] = Spec(wide, (config.lru_width,))
            specs[f"conv.{number}"] = Spec(dtype, (config.conv_width - 1, config.lru_width))
        else:
            shape = (len(window(config, pos)), config.num_kv_heads, config.head_dim)
            specs[f"k.{number}"] = specs[f"v.{number}"] = Spec(dtype, shape)
    return specs


def _layers(state: State, config: GriffinConfig, pos: int) -> dict[str, Tensor]:
    """Cut a state into the tensors of its file."""
    recurrent, span = cut_recurrent(state), cut_span(state, window(config, pos).start, pos)
    tensors: dict[str, Tensor] = {}
    of_kind = {"recurrent": 0, "attention": 0}
    for number, kind in enumerate(config.block_types):
        place = of_kind[kind]
        of_kind[kind] += 1
        if kind == "recurrent":
            tensors[f"rg_lru.{number}"] = recurrent.lru[place]
            tensors[f"conv.{number}"] = recurrent.conv[place]
        else:
            tensors[f"k.{number}"], tensors[f"v.{number}"] = span.k[place], span.v[place]
    return tensors


def _parts(
    tensors: dict[str, Tensor], config: GriffinConfig, dtype: torch.dtype, pos: int
) -> tuple[RecurrentPart, Span]:
    """Put the tensors of a file together again: the inverse of `_layers`."""

    def column(name: str, kind: str) -> Tensor:
        layers: Sequence[int] = [n for n, k in enumerate(config.block_types) if k == kind]
        return (
            torch.stack([tensors[f"{name}.{n}"] for n in layers])
            if layers
            else torch.empty(0, dtype=dtype)
        )

    span = Span(window(config, pos).start, pos, column("k", "attention"), column("v", "attention"))
    return RecurrentPart(column("conv", "recurrent"), column("rg_lru", "recurrent")), span
