"""The tables of the index, by version, and how an earlier one becomes today's.

Version 1 had no items. A store is brought up when it is opened, in one transaction; the griffin
that wrote it refuses it from then on, by its version.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from functools import cache
from typing import Any

SCHEMA_VERSION = 2

_FIRST = """
CREATE TABLE turn (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    parent INTEGER REFERENCES turn (id),
    role TEXT NOT NULL,
    text TEXT,
    ids BLOB NOT NULL,
    tokens INTEGER NOT NULL,
    chain TEXT NOT NULL,
    pending BLOB NOT NULL,
    pos INTEGER,                            -- NULL: its state is not kept
    start INTEGER,
    file TEXT UNIQUE,                       -- NULL: nothing read yet, or no state
    digest TEXT,
    nbytes INTEGER NOT NULL,
    stats TEXT NOT NULL,
    created REAL NOT NULL
);
CREATE INDEX turn_parent ON turn (parent);
CREATE TABLE session (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,               -- names its lock file
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    title TEXT NOT NULL,
    parent INTEGER REFERENCES session (id) ON DELETE SET NULL,  -- the one it was forked from
    fingerprint TEXT NOT NULL,
    config TEXT NOT NULL,
    settings TEXT NOT NULL,
    head INTEGER REFERENCES turn (id),      -- NULL: before the first turn
    tip INTEGER REFERENCES turn (id),       -- where redo leads
    created REAL NOT NULL,
    used REAL NOT NULL,
    UNIQUE (namespace, name)
);
CREATE TABLE member (                       -- a session's turns, and of a fork those it began with
    session INTEGER NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    turn INTEGER NOT NULL REFERENCES turn (id),
    number INTEGER NOT NULL,
    PRIMARY KEY (session, turn),
    UNIQUE (session, number)
) WITHOUT ROWID;
CREATE INDEX member_turn ON member (turn);
"""
_ITEMS = """
CREATE TABLE item (                         -- what a client may ask for by an id of its own
    id INTEGER PRIMARY KEY AUTOINCREMENT,   -- in the order they came
    session INTEGER NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    ref TEXT NOT NULL,                      -- that id
    side TEXT NOT NULL,                     -- input or output: who said it
    body TEXT NOT NULL,                     -- JSON, as the client sees it
    UNIQUE (session, ref)
);
CREATE INDEX item_ref ON item (ref);
CREATE INDEX item_session ON item (session);
"""
_TABLES = {1: _FIRST, 2: _FIRST + _ITEMS}  # by version


def make_tables(index: sqlite3.Connection) -> None:
    """Make today's tables in a new index, inside a transaction of the caller's."""
    _run(index, _TABLES[SCHEMA_VERSION])
    index.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def bring_up(index: sqlite3.Connection) -> None:
    """Make today's version of an earlier one, inside a transaction of the caller's.

    Another process may have done so since it was looked at.
    """
    if index.execute("PRAGMA user_version").fetchone()[0] == 1:
        _run(index, _ITEMS)
        _add_items(index)
        index.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def schema_of(index: sqlite3.Connection) -> set[tuple[str, str]]:
    """Return what a file has, kind and name: tables, their columns, whatever else."""
    parts = index.execute("SELECT type, name FROM sqlite_master").fetchall()
    found = {(str(kind), str(name)) for kind, name in parts if not str(name).startswith("sqlite_")}
    for kind, table in tuple(found):
        if kind == "table":
            columns = index.execute("SELECT name FROM pragma_table_info(?)", (table,))
            found |= {("column", f"{table}.{row[0]}") for row in columns.fetchall()}
    return found


@cache
def tables_of(version: int) -> frozenset[tuple[str, str]]:
    """Return what an index of a version has, as `schema_of` does."""
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(_TABLES[version])
        return frozenset(schema_of(fresh))


def _run(index: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";"):  # not executescript, which commits
        index.execute(statement)


def _add_items(index: sqlite3.Connection) -> None:
    """Add the items that responses of version 1 put out; those they read were not kept.

    `griffin serve` kept a response beside the turn that a session of the same name stands at. What
    is damaged there is passed over: it is told where it is read.
    """
    for (session,) in index.execute("SELECT id FROM session ORDER BY id").fetchall():
        row = index.execute(
            "SELECT session.name, turn.stats FROM session JOIN turn ON turn.id = session.head"
            " WHERE session.id = ?",
            (session,),
        ).fetchone()
        for item in _output(*row) if row else ():
            index.execute(
                "INSERT OR IGNORE INTO item (session, ref, side, body) VALUES (?, ?, ?, ?)",
                (session, item["id"], "output", json.dumps(item)),
            )


def _output(name: Any, stats: Any) -> list[dict[str, Any]]:
    """Return the items of the response that a session is; none of another session."""
    try:
        response = json.loads(stats)["response"]
        if response["id"] != name:
            return []
        return [item for item in response["output"] if item["id"].isprintable()]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return []
