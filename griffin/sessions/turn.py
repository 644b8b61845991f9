"""A turn: one message of a conversation and where it led."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from griffin.sessions.stored import plain
from griffin.sessions.tokens import ID_BYTES, unpack_ids


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One finished message. Turns form a tree; a session's head is one of them.

    number:     counts the session's turns from 1, in the order they were made.
    parent:     number of the turn before it; None for a first one.
    role:       who said it: "user", "model", ...; "state" for what was read before the conversation
                began.
    ids:        its tokens, those around the text included.
    text:       its text, if the caller kept it.
    tokens:     how many tokens the conversation has after it, `pending` included.
    chain:      hash of all of them, 32 hexadecimal digits.
    pending:    the ids at its end that its state has not read, at least one: a state cannot step
                back. None where its state is not kept.
    created:    when it was made, in seconds since 1970.
    nbytes:     bytes it takes on the disk.
    stats:      whatever numbers the caller put beside it.
    restorable: one can stand at it: its state is kept, or all ids since one that is are known, and
                are read again.
    """

    number: int
    parent: int | None
    role: str
    text: str | None
    tokens: int
    chain: str
    pending: tuple[int, ...]
    created: float
    nbytes: int
    stats: dict[str, Any]
    restorable: bool
    pos: int | None = field(repr=False)  # where its state has come to in its document, if kept
    key: int = field(repr=False)  # its row in the index, the same for every session that shares it
    packed_ids: bytes = field(repr=False)

    @property
    def ids(self) -> tuple[int, ...]:
        return unpack_ids(self.packed_ids)

    @property
    def kept(self) -> bool:
        """Whether its state is in a file. Of an imported conversation only the last turn's is."""
        return self.pos is not None


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A way through the tree, from the first turn to one that nothing follows.

    tip:     its last turn.
    turns:   how many turns it has.
    shared:  how many of them lie on the way to the head too.
    current: the head lies on it.
    """

    tip: Turn
    turns: int
    shared: int
    current: bool


@dataclass(frozen=True)
class Blob:
    """What the index knows of a turn's file.

    name:   of the file, random; None when nothing has been read and there is nothing to keep.
    digest: of the file.
    start:  the first position whose keys and values it holds; the last is `pos - 1`.
    pos:    position the state has come to in its document.
    chain:  the turn's.
    """

    name: str | None
    digest: str
    start: int
    pos: int
    chain: str


def turns_of(rows: Iterable[sqlite3.Row]) -> list[Turn]:
    """Read rows of `index.TURNS`, each after its parent's, from a first or a kept turn on."""
    found: list[Turn] = []
    tokens: dict[int | None, int] = {None: 0}  # after the turns that one can stand at
    for row in rows:
        before = tokens.get(row["parent"])
        known = before is not None and before + len(row["ids"]) // ID_BYTES == row["tokens"]
        if restorable := known or row["pos"] is not None:
            tokens[row["id"]] = row["tokens"]
        found.append(_turn_of(row, restorable))
    return found


def blob_of(row: sqlite3.Row) -> Blob:
    """Read a row of the table `turn` whose state is here."""
    return Blob(row["file"], row["digest"], row["start"], row["pos"], row["chain"])


def _turn_of(row: sqlite3.Row, restorable: bool) -> Turn:
    return Turn(
        number=row["number"],
        parent=row["parent_number"],
        role=row["role"],
        text=row["text"],
        tokens=row["tokens"],
        chain=row["chain"],
        pending=unpack_ids(row["pending"]),
        created=row["created"],
        nbytes=row["nbytes"],
        stats=plain(row["stats"], f"the numbers beside turn {row['number']}"),
        restorable=restorable,
        pos=row["pos"],
        key=row["id"],
        packed_ids=row["ids"],
    )
