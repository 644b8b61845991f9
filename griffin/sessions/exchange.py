"""Sessions to state files and back."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from griffin.model import GriffinConfig
from griffin.sessions import history
from griffin.sessions.changes import insert_session, insert_turn, turn_bytes
from griffin.sessions.fingerprint import Fingerprint
from griffin.sessions.room import session_bytes
from griffin.sessions.state_file import info_of, load_state_file, save_state_file
from griffin.sessions.tokens import pack_ids
from griffin.sessions.turn import Blob, Turn
from griffin.sessions.turn_file import first_kept, pack_turn, pieces

if TYPE_CHECKING:
    from griffin.sessions.store import Store


def export_turn(
    store: Store,
    session: int,
    turn: Turn | None,
    fingerprint: Fingerprint,
    config: GriffinConfig,
    title: str,
    path: str | Path,
) -> int:
    """Write a turn of a session as a state file and return its bytes. ValueError before the first
    turn."""
    if turn is None:
        raise ValueError("nothing has been said yet; there is no state to export")
    state = history.state_after(store.index, store.blobs, turn, config, fingerprint)
    line = history.line(store.index, session, turn.key)
    info = info_of(line, fingerprint, config, title)
    return save_state_file(path, info, state)


def import_state(
    store: Store, path: str | Path, name: str, fingerprint: Fingerprint | None, title: str | None
) -> None:
    """Begin a session from a state file, its turns as text and the last one's state."""
    info, state = load_state_file(path, fingerprint)
    records = info.records
    pos = int(state.pos[0]) if state is not None else 0
    start = first_kept(info.config, pos, 0)
    packed = pack_turn(pieces(state, start), start, pos, info.chain) if state is not None else None
    sizes = [turn_bytes(0, pack_ids(record.ids), record.text, "{}") for record in records]
    sizes[-1] += packed.nbytes if packed else 0
    title = info.title if title is None else title
    needed = session_bytes(title, {}, len(records)) + sum(sizes)
    with store.writing(packed, needed) as (index, file):
        session = insert_session(
            index,
            key=secrets.token_hex(16),
            namespace=store.namespace,
            name=name,
            title=title,
            fingerprint=info.fingerprint,
            config=info.config,
            settings={},
        )
        parent: int | None = None
        blob = Blob(file, packed.digest if packed else "", start, pos, info.chain)
        for number, (record, nbytes) in enumerate(zip(records, sizes, strict=True), start=1):
            last = number == len(records)
            parent = insert_turn(
                index,
                session,
                parent,
                role=record.role,
                text=record.text,
                ids=pack_ids(record.ids),
                tokens=record.tokens,
                chain=record.chain,
                pending=pack_ids(info.pending) if last else b"",
                blob=blob if last else None,
                nbytes=nbytes,
                stats="{}",
                created=record.created,
            )
