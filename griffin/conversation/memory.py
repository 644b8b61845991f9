"""A tree of turns that lives as long as the program: what a Session does, without a disk.

A turn keeps the recurrent part after it and the keys and values of its own tokens, as a session's
files do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from griffin.engine import Context, Seen
from griffin.engine.pieces import RecurrentPart, Span, cut_recurrent, cut_span, join, window
from griffin.model import GriffinConfig, State
from griffin.sessions import (
    NOTHING,
    Branch,
    Fingerprint,
    StateInfo,
    Turn,
    TurnRecord,
    UnknownTurn,
    extend_chain,
    load_state_file,
    save_state_file,
)
from griffin.sessions.state_file import info_of
from griffin.sessions.tokens import pack_ids
from griffin.sessions.tree import branches, line_to, read_ids, youngest
from griffin.sessions.turn_file import check_finite, check_state, first_kept


@dataclass(frozen=True)
class _Kept:
    """A turn and what it adds to the state; `parts` is None where nothing was read or no state is
    here."""

    turn: Turn
    pos: int
    parts: tuple[RecurrentPart, Span] | None


class Memory:
    """A conversation in memory. Methods, arguments and errors are those of a Session."""

    name = ""

    def __init__(
        self,
        fingerprint: Fingerprint,
        config: GriffinConfig,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.fingerprint = fingerprint
        self.config = config
        self.title = ""
        self.settings: dict[str, Any] = dict(settings or {})
        self.head: Turn | None = None
        self._tip: Turn | None = None
        self._kept: list[_Kept] = []

    @classmethod
    def from_file(cls, path: str | Path, fingerprint: Fingerprint) -> Memory:
        """Begin with a state file: its turns as text, the last one's state. Errors of
        `load_state_file`."""
        info, state = load_state_file(path, fingerprint)
        memory = cls(fingerprint, info.config)
        memory.title = info.title
        memory.begin(info, state)
        return memory

    def begin(self, info: StateInfo, state: State | None) -> None:
        """Take what led to a state as the first turns; only the last can be gone back to."""
        *before, last = info.records
        for record in before:
            self._add(record, (), None, 0, {}, restorable=False)
        self._add(last, info.pending, state, 0, {}, restorable=True)

    @property
    def tokens(self) -> int:
        """How many tokens the conversation has up to the head, those pending included."""
        return self.head.tokens if self.head else 0

    @property
    def nbytes(self) -> int:
        """Bytes that the turns of all branches keep in memory."""
        return sum(part.nbytes for kept in self._kept if kept.parts for part in kept.parts)

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""

    def resume(self) -> Context:
        """Put the state after the head together."""
        line = self.turns()
        return Context(
            state=self._state(self.head),
            pending=self.head.pending if self.head else (),
            seen=Seen(lambda: read_ids(line)),
            tokens=self.tokens,
        )

    def commit(
        self,
        *,
        role: str,
        ids: Sequence[int],
        state: State | None,
        pending: Sequence[int],
        text: str | None = None,
        stats: Mapping[str, Any] | None = None,
    ) -> Turn:
        """Keep a finished turn after the head and stand at it."""
        before = self._kept[self.head.number - 1].pos if self.head else 0
        chain = bytes.fromhex(self.head.chain) if self.head else NOTHING
        record = TurnRecord(
            role=role,
            text=text,
            ids=tuple(ids),
            tokens=self.tokens + len(ids),
            chain=extend_chain(chain, ids).hex(),
            created=time.time(),
        )
        return self._add(record, tuple(pending), state, before, dict(stats or {}), restorable=True)

    def undo(self, turns: int = 1) -> Turn | None:
        """Go back so many turns; UnknownTurn if there are not so many, or the state there is not
        here."""
        line = self.turns()
        if not 1 <= turns <= len(line):
            raise UnknownTurn(
                f"the conversation has {len(line)} turns here; {turns} cannot be undone"
            )
        return self._move(line[-turns - 1] if turns < len(line) else None, self._tip)

    def redo(self, turns: int = 1) -> Turn | None:
        """Go forward so many turns, along the way that was left by `undo`."""
        way = self._line(self._tip)
        ahead = way[self._depth(self.head) :]
        if not 1 <= turns <= len(ahead):
            raise UnknownTurn(f"there are {len(ahead)} turns to redo, not {turns}")
        return self._move(ahead[turns - 1], self._tip)

    def goto(self, number: int | None) -> Turn | None:
        """Stand at a turn of any branch, or before the first (None)."""
        if number is None:
            return self._move(None, self._tip)
        if not 1 <= number <= len(self._kept):
            raise UnknownTurn(f"the session has no turn {number!r}; its branches show which it has")
        turn = self._kept[number - 1].turn
        tip = self._tip
        if turn not in self._line(tip):
            tip = youngest(self.tree(), turn)
        return self._move(turn, tip)

    def turns(self) -> list[Turn]:
        """Return the turns from the first to the head."""
        return self._line(self.head)

    def tree(self) -> list[Turn]:
        """Return all turns of all branches, in the order they were made."""
        return [kept.turn for kept in self._kept]

    def branches(self) -> list[Branch]:
        """Return all ways through the tree, in the order their last turns were made."""
        return branches(self.tree(), self.head)

    def update(
        self, *, title: str | None = None, settings: Mapping[str, Any] | None = None
    ) -> None:
        """Change the title, or the plain values kept beside the conversation; None leaves them."""
        self.title = self.title if title is None else title
        self.settings = (
            self.settings if settings is None else json.loads(json.dumps(dict(settings)))
        )

    def info(self) -> StateInfo:
        """Return what a state file of the head says of itself; ValueError before the first turn."""
        if self.head is None:
            raise ValueError("nothing has been said yet; there is no state to keep")
        return info_of(self.turns(), self.fingerprint, self.config, self.title)

    def export(self, path: str | Path) -> int:
        """Write the head as a state file and return its bytes."""
        return save_state_file(path, self.info(), self._state(self.head))

    def _add(
        self,
        record: TurnRecord,
        pending: tuple[int, ...],
        state: State | None,
        before: int,
        stats: dict[str, Any],
        *,
        restorable: bool,
    ) -> Turn:
        pos, parts = 0, None
        if state is not None:
            pos = int(state.pos[0])
            check_state(state, self.config, self.fingerprint.torch_dtype, pos)
            start = first_kept(self.config, pos, before)
            recurrent, span = cut_recurrent(state), cut_span(state, start, pos)
            check_finite({"conv": recurrent.conv, "lru": recurrent.lru, "k": span.k, "v": span.v})
            parts = recurrent, span
        number = len(self._kept) + 1
        turn = Turn(
            number=number,
            parent=self.head.number if self.head else None,
            role=record.role,
            text=record.text,
            tokens=record.tokens,
            chain=record.chain,
            pending=pending,
            created=record.created,
            nbytes=sum(part.nbytes for part in parts) if parts else 0,
            stats=stats,
            restorable=restorable,
            key=number,
            packed_ids=pack_ids(record.ids),
        )
        self._kept.append(_Kept(turn, pos, parts))
        self.head = self._tip = turn
        return turn

    def _state(self, turn: Turn | None) -> State | None:
        if turn is None or self._kept[turn.number - 1].parts is None:
            return None
        head = self._kept[turn.number - 1]
        first = window(self.config, head.pos).start
        spans: list[Span] = []
        for passed in reversed(self._line(turn)):
            parts = self._kept[passed.number - 1].parts
            if parts is None:
                break
            spans.append(parts[1])
            if parts[1].start <= first:
                break
        assert head.parts is not None
        return join(self.config, head.pos, head.parts[0], spans, self.fingerprint.torch_dtype)

    def _line(self, turn: Turn | None) -> list[Turn]:
        return line_to(self.tree(), turn)

    def _depth(self, turn: Turn | None) -> int:
        return len(self._line(turn))

    def _move(self, turn: Turn | None, tip: Turn | None) -> Turn | None:
        if turn is not None and not turn.restorable:
            raise UnknownTurn(
                f"turn {turn.number} is here as text only; the first state here is that of the turn"
                " the conversation went on from"
            )
        self.head, self._tip = turn, tip
        return turn
