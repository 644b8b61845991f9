"""What a list of sessions shows, without opening any."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from griffin.sessions.fingerprint import Fingerprint
from griffin.sessions.index import SESSION
from griffin.sessions.quota import BYTES, HELD, ITEMS
from griffin.sessions.stored import fingerprint_of, plain


@dataclass(frozen=True, kw_only=True)
class SessionInfo:
    """What a list shows of a session.

    parent:  name of the session it was forked from; "" if it was not, or that one is gone or in
             another namespace.
    turns:   how many it has, on all branches.
    head:    number of the turn it stands at; None before the first.
    tokens:  up to its head, those pending included.
    nbytes:  on the disk, those it shares with forks included.
    created, used: seconds since 1970.
    """

    name: str
    title: str
    parent: str
    fingerprint: Fingerprint
    settings: dict[str, Any]
    turns: int
    head: int | None
    tokens: int
    nbytes: int
    created: float
    used: float


@dataclass(frozen=True, kw_only=True)
class StoreUsage:
    """What a store holds, all namespaces together; what several sessions share counts once.

    nbytes: what the quota counts: turns, items, and the rows of sessions.
    """

    sessions: int
    turns: int
    nbytes: int


# Conditions follow.
INFOS = f"""
SELECT {SESSION}, head.tokens AS head_tokens, above.name AS parent_name,
    (SELECT number FROM member
     WHERE member.session = session.id AND member.turn = session.head) AS stands_at,
    (SELECT count(*) FROM member WHERE member.session = session.id) AS turns,
    (SELECT coalesce(sum({BYTES}), 0) FROM member JOIN turn ON turn.id = member.turn
     WHERE member.session = session.id)
        + (SELECT {ITEMS} FROM item WHERE item.session = session.id) AS nbytes
FROM session LEFT JOIN turn AS head ON head.id = session.head
LEFT JOIN session AS above
    ON above.id = session.parent AND above.namespace = session.namespace
"""
# Whether a session has :words in its title or a text; every one has "".
HAS_WORDS = """
(instr(lower(session.title), lower(:words)) OR EXISTS (
    SELECT 1 FROM member JOIN turn ON turn.id = member.turn
    WHERE member.session = session.id AND instr(lower(turn.text), lower(:words))
))
"""
USAGE = f"SELECT (SELECT count(*) FROM session), (SELECT count(*) FROM turn), ({HELD})"


def info_of(row: sqlite3.Row) -> SessionInfo:
    """Read a row of `INFOS`."""
    return SessionInfo(
        name=row["name"],
        title=row["title"],
        parent=row["parent_name"] or "",
        fingerprint=fingerprint_of(row),
        settings=plain(row["settings"], f"the settings of the session {row['name']!r}"),
        turns=row["turns"],
        head=row["stands_at"],
        tokens=row["head_tokens"] or 0,
        nbytes=row["nbytes"],
        created=row["created"],
        used=row["used"],
    )
