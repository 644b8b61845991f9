"""Turns as the index has them, and their states as the files have them."""

from __future__ import annotations

from griffin.engine import Context, Seen
from griffin.engine.pieces import window
from griffin.model import GriffinConfig, State
from griffin.sessions.errors import UnknownSession, UnknownTurn
from griffin.sessions.fingerprint import Fingerprint
from griffin.sessions.folder import Folder
from griffin.sessions.index import FILES, LINE, ON_WAY, TURNS, UNREAD, Index
from griffin.sessions.tree import read_ids
from griffin.sessions.turn import Turn, blob_of, turns_of
from griffin.sessions.turn_file import read_state


def tree(index: Index, session: int) -> list[Turn]:
    """Return all turns of a session, of all branches, in the order they were made."""
    return turns_of(index.rows(f"{TURNS} ORDER BY member.number", {"session": session}))


def line(index: Index, session: int, turn: int | None) -> list[Turn]:
    """Return the turns from a first one to this one (a key), oldest first; none for None."""
    return turns_of(index.rows(LINE, {"session": session, "turn": turn}))


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
    if turn is None or base is None:
        return Context(pending=pending, tokens=len(pending))
    seen = Seen(lambda: read_ids(line(folder.index, session, base.key)))
    state = _state_after(folder, base, config, mark)
    return Context(state=state, pending=pending, seen=seen, tokens=turn.tokens)


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
    return turns_of(index.rows(UNREAD, {"session": session, "turn": turn}))
