"""What a row of the index may hold: each is looked at when it is read, and refused by name.

An index may be damaged in any byte, or somebody else's making; sqlite keeps no column to its type.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from griffin.model import GriffinConfig
from griffin.sessions.errors import InvalidName, StateTorn
from griffin.sessions.fingerprint import Fingerprint, json_digest
from griffin.sessions.names import check_kept, check_namespace, is_moment, too_deep
from griffin.sessions.tokens import ID_BYTES

REMEDY = "restore the folder from a copy, or delete the session"

_RANDOM = re.compile(r"[0-9a-f]{32}")
_MOST = 1 << 62  # of a count; far beyond any that was counted


class _Kind(NamedTuple):
    """What a column holds, in words, and the test of it."""

    words: str
    fits: Callable[[Any], bool]


def is_random_name(name: object) -> bool:
    """Return whether this can name a blob or a lock of ours: a path never can."""
    return isinstance(name, str) and _RANDOM.fullmatch(name) is not None


def _is_name(value: object) -> bool:
    try:
        return isinstance(value, str) and check_kept(value) == value
    except InvalidName:
        return False


def _is_namespace(value: object) -> bool:
    try:
        return isinstance(value, str) and check_namespace(value) == value
    except InvalidName:
        return False


def _or_none(kind: _Kind) -> _Kind:
    return _Kind(f"{kind.words} or nothing", lambda value: value is None or kind.fits(value))


_COUNT = _Kind("a whole number", lambda value: isinstance(value, int) and 0 <= value <= _MOST)
_ORDER = _Kind("a number from 1", lambda value: isinstance(value, int) and 1 <= value <= 1 << 32)
_TEXT = _Kind("a text", lambda value: isinstance(value, str))
_TOKENS = _Kind("packed ids", lambda value: isinstance(value, bytes) and len(value) % ID_BYTES == 0)
_HASH = _Kind("32 hexadecimal digits", is_random_name)
_MOMENT = _Kind("a time", is_moment)
_NAME = _Kind("a name", _is_name)

# By name, in whatever table or query; what has no row here is no column of ours.
_COLUMNS: dict[str, _Kind] = {
    "id": _COUNT,
    "parent": _or_none(_COUNT),
    "role": _TEXT,
    "text": _or_none(_TEXT),
    "ids": _TOKENS,
    "tokens": _COUNT,
    "chain": _HASH,
    "pending": _TOKENS,
    "pos": _or_none(_COUNT),
    "start": _or_none(_COUNT),
    "file": _or_none(_HASH),
    "digest": _or_none(_Kind("a digest", lambda value: value == "" or is_random_name(value))),
    "nbytes": _COUNT,
    "stats": _TEXT,
    "created": _MOMENT,
    "key": _HASH,
    "namespace": _Kind("a namespace", _is_namespace),
    "name": _NAME,
    "title": _TEXT,
    "fingerprint": _TEXT,
    "config": _TEXT,
    "settings": _TEXT,
    "head": _or_none(_COUNT),
    "tip": _or_none(_COUNT),
    "used": _MOMENT,
    "session": _COUNT,
    "ref": _TEXT,
    "side": _Kind("input or output", lambda value: value in ("input", "output")),
    "body": _TEXT,
    "turn": _COUNT,
    "number": _ORDER,
    "parent_number": _or_none(_ORDER),
    "parent_name": _or_none(_NAME),
    "head_tokens": _or_none(_COUNT),
    "stands_at": _or_none(_ORDER),
    "turns": _COUNT,
}


def wrong(row: sqlite3.Row) -> str:
    """Return what is wrong with a row, in words; "" if nothing is."""
    columns = row.keys()
    for column, value in zip(columns, row, strict=True):
        kind = _COLUMNS.get(column)
        if kind is not None and not kind.fits(value):
            return f"its {column} is {value!r:.60}, not {kind.words}"
    return _turn_at_odds(row) if "chain" in columns and "id" in columns else ""


def _turn_at_odds(row: sqlite3.Row) -> str:
    """Return how the columns of a turn contradict each other; "" if they do not."""
    columns = row.keys()
    if row["parent"] is not None:
        if row["parent"] >= row["id"]:
            return "the turn before it is younger than itself"
        if "parent_number" in columns and row["parent_number"] is None:
            return "the turn before it is not the session's"
    if "ids" in columns and len(row["ids"]) // ID_BYTES > row["tokens"]:
        return f"it has more ids than the {row['tokens']} tokens up to its end"
    if row["pos"] is None:
        return "" if row["file"] is None else "it has a file, and no position"
    if row["start"] is None or row["digest"] is None or row["start"] > row["pos"]:
        return f"its file begins at {row['start']} and ends at {row['pos']}"
    if row["file"] is None and row["pos"]:
        return f"it has no file, and has read up to position {row['pos']}"
    pending = len(row["pending"]) // ID_BYTES
    # A tuned state has more positions than ids, how many says the fingerprint; `history` asks it.
    if "tokens" in columns and row["pos"] + pending < row["tokens"]:
        return (
            f"of the {row['tokens']} tokens up to its end its state has read {row['pos']}, and"
            f" {pending} are pending"
        )
    return "" if pending else "nothing is pending after it"


def refused(row: sqlite3.Row, where: object, said: str) -> StateTorn:
    """Return the error for a row with something wrong."""
    columns = row.keys()
    what = "a row"
    if "key" in columns and "name" in columns:
        what = f"the session {row['name']!r:.150}"
    elif "number" in columns:
        what = f"turn {row['number']!r:.30}"
    elif "ref" in columns:
        what = f"the item {row['ref']!r:.150}"
    return StateTorn(f"{where} is damaged: {what} cannot be read, {said}; {REMEDY}")


def plain(text: str, what: str) -> dict[str, Any]:
    """Read plain values by name that are kept as JSON; StateTorn for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or too_deep(found):
        raise StateTorn(f"{what} cannot be read: no plain values by name; {REMEDY}")
    return found


def fingerprint_of(row: Mapping[str, Any] | sqlite3.Row) -> Fingerprint:
    """Read a session's fingerprint; StateTorn if it is none."""
    parts = plain(row["fingerprint"], f"the fingerprint of the session {row['name']!r}")
    try:
        return Fingerprint.from_dict(parts)
    except (TypeError, ValueError) as error:
        raise StateTorn(
            f"the fingerprint of the session {row['name']!r} cannot be read ({error!s:.300});"
            f" {REMEDY}"
        ) from None


def mark_and_config(row: sqlite3.Row) -> tuple[Fingerprint, GriffinConfig]:
    """Read a session's fingerprint and its model's shape, which must belong together."""
    mark = fingerprint_of(row)
    what = f"the config of the session {row['name']!r}"
    fields = plain(row["config"], what)
    # Before anything is made of it: its numbers may be of any size.
    if json_digest(fields) != mark.config:
        raise StateTorn(f"{what} is not the one its fingerprint was made of; {REMEDY}")
    try:
        return mark, GriffinConfig.from_dict(fields)
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise StateTorn(f"{what} cannot be read ({error!s:.300}); {REMEDY}") from None
