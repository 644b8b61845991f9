"""Turns as the index has them, and their states as the files have them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter

from griffin.engine import Context, Seen
from griffin.engine.pieces import window
from griffin.model import GriffinConfig, State
from griffin.sessions.errors import StateTorn, UnknownSession, UnknownTurn
from griffin.sessions.fingerprint import Fingerprint
from griffin.sessions.folder import Folder
from griffin.sessions.index import FILES, LINE, ON_WAY, TURNS, UNREAD, Index
from griffin.sessions.stored import REMEDY
from griffin.sessions.tree import read_ids
from griffin.sessions.turn import Turn, blob_of, turns_of
from griffin.sessions.turn_file import read_state


def tree(index: Index, session: int) -> list[Turn]:
    """Return all turns of a session, of all branches, in the order they were made."""
    return turns_of(sorted(tree_rows(index, session), key=itemgetter("number")))


def tree_rows(index: Index, session: int) -> list[sqlite3.Row]:
    """Return the rows of all turns of a session, each after its parent's."""
    rows = index.rows(f"{TURNS} ORDER BY turn.id", {"session": session})
    there = {None, *(row["id"] for row in rows)}
    if any(row["parent"] not in there for row in rows):
        raise _gap(index)
    return rows


def line(index: Index, session: int, turn: int | None) -> list[Turn]:
    """Return the turns from a first one to this one (a key), oldest first; none for None."""
    if turn is None:
        return []
    rows = index.rows(LINE, {"session": session, "turn": turn})
    _check_way(index, rows, turn)
    if rows[0]["parent"] is not None:
        raise _gap(index)
    return turns_of(rows)


def on_way(index: Index, turn: Turn, to: int | None) -> bool:
    """Return whether a turn lies on the way to another one (a key), or is it."""
    return index.row(ON_WAY, {"turn": to, "on": turn.key}) is not None


def turn(index: Index, session: int, *, number: int | None = None, key: int | None = None) -> Turn:
    """Return one turn of a session by its number or its key; UnknownTurn if there is none."""
    query = f"{TURNS} AND (member.number = :number OR turn.id = :key)"
    row = index.row(query, {"session": session, "number": number, "key": key})
    if row is None:
        raise UnknownTurn(f"the session has no turn {number!r}; its branches show which it has")
    if row["pos"] is None:
        return _back(index, session, row["id"])[-1]
    return turns_of([row])[0]


def head(index: Index, session: int, key: int) -> Turn:
    """Return the turn that a session stands at; StateTorn if it has no such turn."""
    try:
        return turn(index, session, key=key)
    except UnknownTurn:
        raise StateTorn(
            f"{index.path} is damaged: a session stands at a turn that it does not have; {REMEDY}"
        ) from None


def check_restorable(turn: Turn) -> None:
    """Raise UnknownTurn for a turn that one cannot stand at."""
    if not turn.restorable:
        raise UnknownTurn(
            f"the state after turn {turn.number} is not kept here, and it cannot be read again:"
            " some of the tokens before it came without their ids; go to a later turn, or before"
            " the first"
        )


def unread(index: Index, session: int, turn: Turn | None) -> tuple[Turn | None, tuple[int, ...]]:
    """Return the nearest turn back from here whose state is kept, and the ids it has not read.

    It is None if there is none. UnknownTurn if not all of these ids are known.
    """
    if turn is None or turn.kept:
        return turn, turn.pending if turn else ()
    check_restorable(turn)
    base, *since = way = _back(index, session, turn.key)
    if not base.kept:
        return None, tuple(i for each in way for i in each.ids)
    return base, (*base.pending, *(i for each in since for i in each.ids))


def context_at(
    folder: Folder, session: int, turn: Turn | None, config: GriffinConfig, mark: Fingerprint
) -> Context:
    """Return where a session goes on after a turn; its state lies on the CPU.

    mark: the session's fingerprint.
    Raises StateTorn, naming the file, if one is missing or not what was written.
    """
    base, pending = unread(folder.index, session, turn)
    _check_kept(pending, config)
    if turn is None or base is None:
        return Context(pending=pending, tokens=len(pending))
    check_position(base, mark, str(folder))
    seen = Seen(lambda: _check_kept(read_ids(line(folder.index, session, base.key)), config))
    state = _state_after(folder, base, config, mark)
    return Context(state=state, pending=pending, seen=seen, tokens=turn.tokens)


def check_position(turn: Turn, mark: Fingerprint, where: str) -> None:
    """Raise StateTorn unless a turn's state stands where its tokens lead in a model.

    turn: one that is kept. mark: the fingerprint. where: what the turn is of.
    """
    read = turn.tokens - len(turn.pending)
    if turn.pos != mark.position(0, read):
        raise StateTorn(
            f"{where} is damaged: of the {turn.tokens} tokens up to the end of turn {turn.number}"
            f" its state has read {turn.pos}, and {len(turn.pending)} are pending; {REMEDY}"
        )


def _check_kept(ids: Sequence[int], config: GriffinConfig) -> Sequence[int]:
    """Return ids that were kept; StateTorn for one that the model does not have."""
    if ids and max(ids) >= config.vocab_size:
        raise StateTorn(
            f"a session is damaged: it holds the token {max(ids)}, and its model has"
            f" {config.vocab_size}; {REMEDY}"
        )
    return ids


def _state_after(
    folder: Folder, turn: Turn, config: GriffinConfig, mark: Fingerprint
) -> State | None:
    """Read the state after a turn, which is kept, from the files; None if it has read nothing."""
    assert turn.pos is not None
    first = window(config, turn.pos).start
    rows = folder.index.rows(FILES, {"turn": turn.key, "first": first})
    if not rows:
        raise UnknownSession("the session was deleted while it was being read")
    if rows[0]["file"] is None:
        return None
    return read_state(folder, [blob_of(row) for row in rows], config, mark.torch_dtype)


def _back(index: Index, session: int, turn: int) -> list[Turn]:
    """Return the turns from the last one that is kept, or the first, to this one (a key)."""
    rows = index.rows(UNREAD, {"session": session, "turn": turn})
    _check_way(index, rows, turn)
    if rows[0]["parent"] is not None and rows[0]["pos"] is None:
        raise _gap(index)
    return turns_of(rows)


def _check_way(index: Index, rows: Sequence[sqlite3.Row], turn: int) -> None:
    """Raise StateTorn unless each row goes on from the one before, and the last is this turn."""
    if not rows or rows[-1]["id"] != turn:
        raise _gap(index)
    if any(after["parent"] != before["id"] for before, after in pairwise(rows)):
        raise _gap(index)


def _gap(index: Index) -> StateTorn:
    return StateTorn(f"{index.path} is damaged: it lacks a turn that others follow; {REMEDY}")
