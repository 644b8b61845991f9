"""One state in one file to carry anywhere: `*.state.safetensors`, readable by any safetensors
library.

Metadata, all strings: format, version, fingerprint and config (JSON), tokens_seen, pos,
                       token_chain_hash,
pending_ids (JSON), created, parent, title, turns (JSON). Tensors: `rg_lru.N`, `conv.N` of the
recurrent layers; `k.N`, `v.N` of the attention layers, the window's positions, oldest first; `ids`,
those of all turns one after another.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from griffin.engine.pieces import RecurrentPart, Span, cut_recurrent, cut_span, join, window
from griffin.model import GriffinConfig, State
from griffin.sessions.disk import write_durably
from griffin.sessions.errors import SessionError, UnknownSession
from griffin.sessions.fingerprint import Fingerprint, config_digest
from griffin.sessions.names import check_text
from griffin.sessions.tensor_file import Spec, TensorFile, pack
from griffin.sessions.tokens import NOTHING, check_ids, extend_chain
from griffin.sessions.turn import Turn
from griffin.sessions.turn_file import check_finite, check_state

FORMAT = "griffin-portable-state"
VERSION = "1"
_LARGEST = (
    1 << 30
)  # bytes of a state we are willing to build for a file that only vouches for itself


@dataclass(frozen=True, kw_only=True)
class TurnRecord:
    """A turn as text and tokens, without its state. Fields as those of Turn."""

    role: str
    text: str | None
    ids: tuple[int, ...]
    tokens: int
    chain: str
    created: float


@dataclass(frozen=True, kw_only=True)
class StateInfo:
    """Everything about a state but its numbers.

    fingerprint: of the model it belongs to; `fingerprint.config` is the digest of `config`.
    config:      the model's shape.
    tokens:      how many tokens led to it, `pending` included.
    chain:       hash chain over all of them (`extend_chain`), 32 hexadecimal digits.
    pending:     the last ids, which the state has not read: at least one.
    turns:       the conversation so far, oldest first; empty if it was no conversation, or its text
                 is not kept.
    parent:      the chain of the state it went on from; "" if it went on from none.
    title:       for people.
    created:     seconds since 1970.
    """

    fingerprint: Fingerprint
    config: GriffinConfig
    tokens: int
    chain: str
    pending: tuple[int, ...]
    turns: tuple[TurnRecord, ...] = ()
    parent: str = ""
    title: str = ""
    created: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        """Raise ValueError for parts that contradict each other."""
        if self.fingerprint.config != config_digest(self.config):
            raise ValueError("the fingerprint's config is not the digest of the config beside it")
        check_ids(self.pending, self.config.vocab_size, "the pending ids")
        if not self.pending:
            raise ValueError(
                "nothing is pending; keep the state before its last token, and that token beside it"
            )
        if not len(self.pending) <= self.tokens < 1 << 63:
            raise ValueError(f"{len(self.pending)} ids are pending, of {self.tokens} tokens in all")
        if not isinstance(self.created, (int, float)) or not math.isfinite(self.created):
            raise ValueError(f"created is {self.created!r}; it counts seconds since 1970")
        check_text(self.title, "the title")
        check_text(self.parent, "the parent")
        _check_chain(self.chain)
        _check_turns(self)

    @property
    def records(self) -> tuple[TurnRecord, ...]:
        """The turns; where there are none, one that stands for all that was read."""
        bare = TurnRecord(
            role="state",
            text=None,
            ids=(),
            tokens=self.tokens,
            chain=self.chain,
            created=self.created,
        )
        return self.turns or (bare,)


def info_of(
    line: Sequence[Turn], fingerprint: Fingerprint, config: GriffinConfig, title: str
) -> StateInfo:
    """Return what a state file says of the last of these turns, which follow each other from a
    first one."""
    turn = line[-1]
    records = (
        TurnRecord(
            role=t.role, text=t.text, ids=t.ids, tokens=t.tokens, chain=t.chain, created=t.created
        )
        for t in line
    )
    return StateInfo(
        fingerprint=fingerprint,
        config=config,
        tokens=turn.tokens,
        chain=turn.chain,
        pending=turn.pending,
        turns=tuple(records),
        parent=line[-2].chain if len(line) > 1 else "",
        title=title,
    )


def save_state_file(path: str | Path, info: StateInfo, state: State | None) -> int:
    """Write a state file of mode 0600, whole or not at all, in place of any file of that name.

    state: one row that has read everything but `info.pending`; None if that is nothing.
    Returns the bytes written. Raises ValueError for a state that does not fit `info`, StorageFull
    without room.
    """
    config, dtype = info.config, info.fingerprint.torch_dtype
    read = info.tokens - len(info.pending)
    pos = int(state.pos[0]) if state is not None else 0
    if (state is None) != (read == 0):
        raise ValueError(
            f"of {info.tokens} tokens {len(info.pending)} are pending; the state must have read the"
            " rest"
        )
    tensors: dict[str, Tensor] = {}
    if state is not None:
        if pos > read:
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
    packed = pack(
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
            "turns": json.dumps(turns),
        },
    )
    write_durably(Path(path), packed.chunks)
    return packed.nbytes


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
        info, pos = _info(file, fingerprint)
        if info.tokens == len(info.pending):
            return info, None
        config, dtype = info.config, info.fingerprint.torch_dtype
        if (
            fingerprint is None
            and State.zeros(config, 1, dtype=dtype, device="meta").nbytes > _LARGEST
        ):
            raise file.torn(
                f"its state would take more than {_LARGEST} bytes; name the model it belongs to"
            )
        tensors = {name: file.read(name) for name in file.specs if name != "ids"}
        try:
            check_finite(tensors)
        except ValueError as error:
            raise file.torn(str(error)) from None
    recurrent, span = _parts(tensors, config, dtype, pos)
    return info, join(config, pos, recurrent, [span], dtype)


def read_state_info(path: str | Path) -> StateInfo:
    """Return what a state file says of itself, without its state. Errors as for
    `load_state_file`."""
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
        if not isinstance(rows, list) or not isinstance(pending, list) or not 0 <= pos <= read:
            raise ValueError("turns, pending ids or positions are not what they should be")
        if (read == 0) != (pos == 0):
            raise ValueError(f"position {pos} after {read} tokens")
        if read and config.num_layers > len(file.specs):
            raise ValueError(f"{config.num_layers} layers in {len(file.specs)} tensors")
        count = sum(_count(row["ids"]) for row in rows)
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


def _check_turns(info: StateInfo) -> None:
    """Raise ValueError unless the turns follow one another and end where the state does.

    What was read before the first turn's own tokens need not be known.
    """
    before: TurnRecord | None = None
    for number, turn in enumerate(info.turns, start=1):
        what = f"turn {number}"
        check_text(turn.role, f"the role of {what}")
        if turn.text is not None:
            check_text(turn.text, f"the text of {what}")
        if not isinstance(turn.created, (int, float)) or not math.isfinite(turn.created):
            raise ValueError(
                f"{what} was made at {turn.created!r:.80}; it should be seconds since 1970"
            )
        _count(turn.tokens)
        check_ids(turn.ids, info.config.vocab_size, f"the ids of {what}")
        _check_chain(turn.chain)
        if before is None:
            chain = NOTHING if len(turn.ids) == turn.tokens else None
            if len(turn.ids) > turn.tokens:
                raise ValueError(
                    f"{what} has {len(turn.ids)} ids and ends after {turn.tokens} tokens"
                )
        else:
            chain = bytes.fromhex(before.chain)
            if before.tokens + len(turn.ids) != turn.tokens:
                raise ValueError(
                    f"{what} ends after {turn.tokens} tokens, not {before.tokens + len(turn.ids)}"
                )
        if chain is not None and extend_chain(chain, turn.ids).hex() != turn.chain:
            raise ValueError(f"the tokens of {what} are not those its hash was made of")
        before = turn
    if before is not None and (before.tokens, before.chain) != (info.tokens, info.chain):
        raise ValueError("the last turn does not end where the state does")
    known = [i for turn in info.turns[-len(info.pending) - 1 :] for i in turn.ids][
        -len(info.pending) :
    ]
    if known != list(info.pending)[len(info.pending) - len(known) :]:
        raise ValueError("the pending ids are not the last ones of the turns")


def _check_chain(chain: str) -> None:
    if len(bytes.fromhex(chain)) != len(NOTHING):
        raise ValueError(
            f"a token chain has {2 * len(NOTHING)} hexadecimal digits, not {chain!r:.80}"
        )


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, not {text:.80}")
    return cast(dict[str, Any], value)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r:.80} is no number of tokens")
    return value


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
