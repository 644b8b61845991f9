"""Items: what a client said or was told, kept beside a session under ids that it knows.

They live as long as their session. A body is plain values, its id among them under "id".
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from griffin.sessions.errors import SessionError, StateTorn, UnknownItem
from griffin.sessions.index import Index
from griffin.sessions.names import check_text, plain_json
from griffin.sessions.quota import ITEM_BYTES
from griffin.sessions.stored import REMEDY, plain

Side = Literal["input", "output"]


@dataclass(frozen=True)
class Item:
    """What was said (side "input") or answered ("output"). body: as the client sees it, with its
    "id"."""

    side: Side
    body: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """The bytes it takes in the index, closely enough."""
        return ITEM_BYTES + len(plain_json(self.body, "the item"))


def insert_items(index: sqlite3.Connection, session: int, items: Iterable[Item]) -> list[Item]:
    """Add items to a session, inside a transaction, and return them as they are kept.

    One whose id the session has already gets a new one.
    """
    kept: list[Item] = []
    for item in items:
        ref, body = check_text(item.body["id"], "an item's id"), dict(item.body)
        taken = "SELECT 1 FROM item WHERE session = ? AND ref = ?"
        while index.execute(taken, (session, ref)).fetchone():
            ref = f"{ref.partition('_')[0][:16]}_{secrets.token_hex(16)}"
        body["id"] = ref
        index.execute(
            "INSERT INTO item (session, ref, side, body) VALUES (?, ?, ?, ?)",
            (session, ref, item.side, plain_json(body, "the item")),
        )
        kept.append(Item(item.side, body))
    return kept


def items_of(index: Index, session: int) -> list[Item]:
    """Return a session's items, in the order they came."""
    query = "SELECT * FROM item WHERE session = :session ORDER BY id"
    rows = index.rows(query, {"session": session})
    return [Item(row["side"], body_of(row)) for row in rows]


def page(
    index: Index,
    session: int,
    *,
    side: Side | None = None,
    after: str | None = None,
    limit: int | None = None,
    newest: bool = False,
    most_bytes: int | None = None,
) -> list[dict[str, Any]]:
    """Return the bodies of a session's items in the order they came, or the other way round.

    side: of one side alone. after: an item's id; UnknownItem if none of these has that id.
    limit: how many, at most; None for all.
    most_bytes: of their bodies together. A page ends before it has more, with one item at least;
    all of them are refused then, with SessionError.
    """
    start = None if after is None else _row(index, session, after, side)["id"]
    sizes = index.rows(
        "SELECT id, length(body) AS size FROM item"
        " WHERE session = :session AND coalesce(side = :side, true)"
        f" AND coalesce(id {'<' if newest else '>'} :start, true)"
        f" ORDER BY id {'DESC' if newest else 'ASC'} LIMIT :limit",
        {
            "session": session,
            "side": side,
            "start": start,
            "limit": -1 if limit is None else limit,
        },
    )
    fits = 0
    for total in accumulate(row["size"] for row in sizes):
        if most_bytes is not None and total > most_bytes and (fits or limit is None):
            break
        fits += 1
    if limit is None and fits < len(sizes):
        raise _too_much(len(sizes), sum(row["size"] for row in sizes), most_bytes)
    return [body_of(row) for row in _rows(index, [row["id"] for row in sizes[:fits]])]


def one(index: Index, session: int, ref: str) -> dict[str, Any]:
    """Return an item of a session; UnknownItem if it has none of that id."""
    return body_of(_row(index, session, ref))


def find(
    index: Index, namespaces: Sequence[str], refs: Sequence[str], most_bytes: int | None = None
) -> dict[str, dict[str, Any]]:
    """Return those of these ids that sessions of the namespaces have, each with its body.

    Where several sessions have one, the youngest's. most_bytes: of their bodies together, one that
    is asked for twice counted twice; SessionError if there are more.
    """
    found = index.rows(
        "SELECT max(item.id) AS id, item.ref AS ref, length(item.body) AS size"
        " FROM json_each(:refs) AS asked JOIN item ON item.ref = asked.value"
        " JOIN session ON session.id = item.session"
        " WHERE session.namespace IN (SELECT value FROM json_each(:namespaces)) GROUP BY item.ref",
        {"refs": json.dumps(sorted(set(refs))), "namespaces": json.dumps(list(namespaces))},
    )
    sizes = {row["ref"]: row["size"] for row in found}
    total = sum(sizes.get(ref, 0) for ref in refs)
    if most_bytes is not None and total > most_bytes:
        raise _too_much(len(refs), total, most_bytes)
    return {row["ref"]: body_of(row) for row in _rows(index, [row["id"] for row in found])}


def remove_item(index: sqlite3.Connection, session: int, ref: str) -> None:
    """Remove an item, inside a transaction; UnknownItem if the session has none of that id."""
    done = index.execute("DELETE FROM item WHERE session = ? AND ref = ?", (session, ref))
    if not done.rowcount:
        raise UnknownItem(_unknown(ref))


def body_of(row: sqlite3.Row) -> dict[str, Any]:
    """Read a row of the table; StateTorn for a body that is none, or another's."""
    body = plain(row["body"], f"the item {row['ref']!r:.150}")
    if body.get("id") != row["ref"]:
        raise StateTorn(f"the item {row['ref']!r:.150} has the body of another; {REMEDY}")
    return body


def _row(index: Index, session: int, ref: str, side: Side | None = None) -> sqlite3.Row:
    query = (
        "SELECT * FROM item WHERE session = :session AND ref = :ref"
        " AND coalesce(side = :side, true)"
    )
    row = index.row(query, {"session": session, "ref": ref, "side": side})
    if row is None:
        raise UnknownItem(_unknown(ref))
    return row


def _rows(index: Index, ids: Sequence[int]) -> list[sqlite3.Row]:
    """Return rows of the table, in the order of these ids; one that is gone by now is left out."""
    query = "SELECT * FROM item WHERE id IN (SELECT value FROM json_each(:ids))"
    rows = {row["id"]: row for row in index.rows(query, {"ids": json.dumps(list(ids))})}
    return [rows[id] for id in ids if id in rows]


def _too_much(count: int, nbytes: int, most: int | None) -> SessionError:
    return SessionError(
        f"{count:,} items have {nbytes:,} bytes together, and no more than {most:,} are read at"
        " once; refer to fewer, or delete some"
    )


def _unknown(ref: str) -> str:
    return f"there is no item {ref[:128]!r} here; it was deleted, or is another's"
