"""What conversations take on the disk, and how much they may."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from griffin.sessions.errors import StorageFull
from griffin.sessions.names import plain_json

MOST_SESSIONS = 10_000  # of one namespace
SESSION_BYTES = 2048  # of a session's row and lock file, roughly, beside its title and settings
MEMBER_BYTES = 64  # of a row that says that a session has a turn
ITEM_BYTES = 96  # of an item's row, roughly, beside its body

# What a row says it takes, if it can be believed.
BYTES = "iif(typeof(nbytes) = 'integer' AND nbytes BETWEEN 0 AND 1 << 48, nbytes, 0)"
ITEMS = f"{ITEM_BYTES} * count(*) + coalesce(sum(length(body)), 0)"
_SESSION = f"{SESSION_BYTES} + length(title) + length(settings)"

# All that is held. What several sessions share counts once.
HELD = f"""
SELECT (SELECT coalesce(sum({BYTES}), 0) FROM turn)
    + (SELECT coalesce(sum({_SESSION}), 0) FROM session)
    + (SELECT {MEMBER_BYTES} * count(*) FROM member)
    + (SELECT {ITEMS} FROM item)
"""
# What one session holds.
OWN = f"""
SELECT (SELECT coalesce(sum({_SESSION}), 0) FROM session WHERE id = :session)
    + (SELECT coalesce(sum({BYTES} + {MEMBER_BYTES}), 0)
       FROM member JOIN turn ON turn.id = member.turn WHERE member.session = :session)
    + (SELECT {ITEMS} FROM item WHERE session = :session)
"""
# What is left when an owner's sessions (of the namespaces in a JSON list) are gone, but for one.
# Turns that several of what is left share count once; namespaces of one owner may share some.
LEFT = f"""
WITH kept AS (
    SELECT * FROM session
    WHERE id = :session OR namespace NOT IN (SELECT value FROM json_each(:owner))
)
SELECT (SELECT coalesce(sum({_SESSION}), 0) FROM kept)
    + (SELECT {MEMBER_BYTES} * count(*) FROM member WHERE session IN (SELECT id FROM kept))
    + (SELECT coalesce(sum({BYTES}), 0) FROM turn
       WHERE id IN (SELECT turn FROM member WHERE session IN (SELECT id FROM kept)))
    + (SELECT {ITEMS} FROM item WHERE session IN (SELECT id FROM kept))
"""


def session_bytes(title: str, settings: Mapping[str, Any] | None, turns: int = 0) -> int:
    """Return the bytes of a new session beside its turns, of which it begins with so many."""
    return (
        SESSION_BYTES
        + len(title)
        + len(plain_json(settings, "the settings"))
        + turns * MEMBER_BYTES
    )


def check_quota(index: sqlite3.Connection, quota: int | None, more: int) -> None:
    """Raise StorageFull if all that the store holds and `more` bytes exceed the quota."""
    if quota is None:
        return
    used = index.execute(HELD).fetchone()[0]
    if used + more > quota:
        raise StorageFull(
            f"the store holds {used:,} of {quota:,} bytes allowed, and {more:,} more are needed; "
            "delete a session, or raise the quota"
        )
