"""Rows of the index: written, moved and removed, each inside a transaction of its caller's."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from griffin.model import GriffinConfig
from griffin.sessions.errors import SessionExists
from griffin.sessions.fingerprint import Fingerprint
from griffin.sessions.index import COPY_LINE
from griffin.sessions.names import plain_json
from griffin.sessions.stored import is_random_name
from griffin.sessions.turn import Blob

_ROW = 256  # bytes a turn's row takes beside what is in it, roughly


def insert_session(
    index: sqlite3.Connection,
    *,
    key: str,
    namespace: str,
    name: str,
    title: str,
    fingerprint: Fingerprint,
    config: GriffinConfig,
    settings: Mapping[str, Any],
    parent: int | None = None,
) -> int:
    """Add a session without turns and return its row's id. SessionExists if the name is taken."""
    check_free(index, namespace, name)
    now = time.time()
    values = (
        *(key, namespace, name, title, parent),
        *(
            json.dumps(fingerprint.to_dict()),
            json.dumps(config.to_dict()),
            plain_json(settings, "the settings"),
        ),
        *(now, now),
    )
    cursor = index.execute(
        "INSERT INTO session "
        "(key, namespace, name, title, parent, fingerprint, config, settings, created, used) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def check_free(index: sqlite3.Connection, namespace: str, name: str) -> None:
    """Raise SessionExists if a session of the namespace has this name."""
    query = "SELECT 1 FROM session WHERE namespace = ? AND name = ?"
    if index.execute(query, (namespace, name)).fetchone():
        raise SessionExists(
            f"there is a session {name!r} already; choose another name, or delete that one"
        )


@dataclass(frozen=True, kw_only=True)
class TurnRow:
    """What the index is to say of a turn, packed; fields as those of Turn."""

    role: str
    text: str | None
    ids: bytes
    tokens: int
    chain: str
    pending: bytes = b""
    stats: str = "{}"
    created: float

    @property
    def nbytes(self) -> int:
        """The bytes it takes on the disk, closely enough, without its file."""
        return len(self.ids) + len((self.text or "").encode()) + len(self.stats) + _ROW


def insert_turn(
    index: sqlite3.Connection,
    session: int,
    parent: int | None,
    turn: TurnRow,
    *,
    blob: Blob | None = None,
    file_bytes: int = 0,
    number: int | None = None,
) -> int:
    """Add a turn after `parent`, make it the session's head, and return its row's id.

    blob:   where its state is, in a file of so many bytes; None for a turn without its state.
    number: the next one if omitted.
    """
    placed = (
        (None, None, None, None) if blob is None else (blob.pos, blob.start, blob.name, blob.digest)
    )
    said = (turn.role, turn.text, turn.ids, turn.tokens, turn.chain, turn.pending)
    nbytes = turn.nbytes + file_bytes
    cursor = index.execute(
        "INSERT INTO turn (parent, role, text, ids, tokens, chain, pending, pos, start, file,"
        " digest, nbytes, stats, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (parent, *said, *placed, nbytes, turn.stats, turn.created),
    )
    key = cursor.lastrowid
    assert key is not None
    index.execute(
        "INSERT INTO member (session, turn, number)"
        " SELECT :session, :turn, coalesce(:number, 1 + coalesce(max(number), 0))"
        " FROM member WHERE session = :session",
        {"session": session, "turn": key, "number": number},
    )
    index.execute(
        "UPDATE session SET head = :turn, tip = :turn, used = :now WHERE id = :session",
        {"turn": key, "now": time.time(), "session": session},
    )
    return key


def move_head(index: sqlite3.Connection, session: int, head: int | None, tip: int | None) -> None:
    """Let a session stand at `head`, and redo lead to `tip`."""
    index.execute("UPDATE session SET head = ?, tip = ? WHERE id = ?", (head, tip, session))


def touch(index: sqlite3.Connection, session: int) -> None:
    """Note that a session is being used."""
    index.execute("UPDATE session SET used = ? WHERE id = ?", (time.time(), session))


def copy_line(index: sqlite3.Connection, session: int, target: int, turn: int | None) -> None:
    """Give `target` the way to a turn of `session`, under the same numbers; it stands there."""
    index.execute(COPY_LINE, {"turn": turn, "target": target, "session": session})
    move_head(index, target, turn, turn)


def copy_tree(index: sqlite3.Connection, session: int, target: int) -> None:
    """Give `target` all turns of `session`, under the same numbers; it stands where it stood."""
    index.execute(
        "INSERT INTO member (session, turn, number)"
        " SELECT :target, turn, number FROM member WHERE session = :session",
        {"target": target, "session": session},
    )


def remove_turns(index: sqlite3.Connection, session: int) -> list[str]:
    """Take all turns from a session, and remove those that no other has; return the files nobody
    needs now.

    A damaged row may name any file: those that can be none of ours are left alone.
    """
    index.execute("PRAGMA defer_foreign_keys = ON")  # until the end: turns refer to one another
    own = index.execute(
        "SELECT turn.id, turn.file FROM member JOIN turn ON turn.id = member.turn "
        "WHERE member.session = :session AND NOT EXISTS ("
        " SELECT 1 FROM member AS other WHERE other.turn = turn.id AND other.session <> :session) "
        "ORDER BY turn.id",
        {"session": session},
    ).fetchall()
    index.execute("DELETE FROM member WHERE session = ?", (session,))
    move_head(index, session, None, None)
    index.executemany("DELETE FROM turn WHERE id = ?", [(turn,) for turn, _ in own])
    return [file for _, file in own if is_random_name(file)]


def remove_session(index: sqlite3.Connection, session: int) -> list[str]:
    """Remove a session and turns that no other has; return the files nobody needs now."""
    files = remove_turns(index, session)
    index.execute("DELETE FROM session WHERE id = ?", (session,))
    return files
