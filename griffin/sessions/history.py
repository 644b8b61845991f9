"""Turns as the index has them, and their states as the files have them."""

from __future__ import annotations

from pathlib import Path

from griffin.engine.pieces import window
from griffin.model import GriffinConfig, State
from griffin.sessions.errors import UnknownSession, UnknownTurn
from griffin.sessions.fingerprint import Fingerprint
from griffin.sessions.index import FILES, LINE, TURNS, Index
from griffin.sessions.turn import Turn, blob_of, turn_of
from griffin.sessions.turn_file import read_state


def tree(index: Index, session: int) -> list[Turn]:
    """Return all turns of a session, of all branches, in the order they were made."""
    return [
        turn_of(row) for row in index.rows(f"{TURNS} ORDER BY member.number", {"session": session})
    ]


def line(index: Index, session: int, turn: int | None) -> list[Turn]:
    """Return the turns from a first one to this one (a key), oldest first; none for None."""
    return [turn_of(row) for row in index.rows(LINE, {"session": session, "turn": turn})]


def turn(index: Index, session: int, *, number: int | None = None, key: int | None = None) -> Turn:
    """Return one turn of a session by its number or its key; UnknownTurn if there is none."""
    query = f"{TURNS} AND (member.number = :number OR turn.id = :key)"
    row = index.row(query, {"session": session, "number": number, "key": key})
    if row is None:
        raise UnknownTurn(f"the session has no turn {number!r}; its branches show which it has")
    return turn_of(row)


def check_restorable(turn: Turn) -> None:
    """Raise UnknownTurn if the state after a turn was never here."""
    if not turn.restorable:
        raise UnknownTurn(
            f"turn {turn.number} came with an imported state as text only; the first state here is"
            " that of the turn it was exported at"
        )


def state_after(
    index: Index, blobs: Path, turn: Turn | None, config: GriffinConfig, fingerprint: Fingerprint
) -> State | None:
    """Read the state after a turn from the disk; None if it has read nothing.

    Raises StateTorn, naming the file, if one is missing or not what was written.
    """
    if turn is None:
        return None
    check_restorable(turn)
    row = index.row("SELECT * FROM turn WHERE id = :id", {"id": turn.key})
    if row is None:
        raise UnknownSession("the session was deleted while it was being read")
    if row["file"] is None:
        return None
    first = window(config, row["pos"]).start
    rows = index.rows(FILES, {"turn": turn.key, "first": first})
    return read_state(blobs, [blob_of(row) for row in rows], config, fingerprint.torch_dtype)
