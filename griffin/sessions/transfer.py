"""Sessions on their way: to state files and back, and from one folder to another."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from griffin.model import GriffinConfig, State
from griffin.outputs import file_to_write
from griffin.sessions import history
from griffin.sessions.disk import write_durably
from griffin.sessions.errors import StateTorn, UnknownTurn
from griffin.sessions.fingerprint import Fingerprint
from griffin.sessions.folder import Folder
from griffin.sessions.index import SESSION
from griffin.sessions.items import insert_items, items_of
from griffin.sessions.quota import session_bytes
from griffin.sessions.rows import TurnRow, insert_session, insert_turn, move_head
from griffin.sessions.state_file import pack_state
from griffin.sessions.state_info import StateInfo, info_of
from griffin.sessions.stored import REMEDY, mark_and_config, plain
from griffin.sessions.tensor_file import PackedFile
from griffin.sessions.tokens import pack_ids
from griffin.sessions.turn import Blob, Turn, blob_of
from griffin.sessions.turn_file import first_kept, pack_turn, pieces


def packed_turn(
    folder: Folder,
    session: int,
    turn: Turn | None,
    fingerprint: Fingerprint,
    config: GriffinConfig,
    title: str,
    settings: Mapping[str, Any],
) -> PackedFile:
    """Return a turn of a session as a state file.

    If the turn's state is not kept, it is the nearest one before, and all ids since are pending.
    UnknownTurn before the first turn.
    """
    if turn is None:
        raise UnknownTurn("nothing has been said yet; there is no state to export")
    context = history.context_at(folder, session, turn, config, fingerprint)
    line = history.line(folder.index, session, turn.key)
    try:
        model = str(settings.get("model", ""))
        info = info_of(line, context.pending, fingerprint, config, title, model)
    except ValueError as error:  # turns that contradict each other
        raise StateTorn(f"the index of {folder} is damaged: {error}; {REMEDY}") from None
    return pack_state(info, context.state)


def export_turn(
    folder: Folder,
    session: int,
    turn: Turn | None,
    fingerprint: Fingerprint,
    config: GriffinConfig,
    title: str,
    settings: Mapping[str, Any],
    path: str | Path,
) -> int:
    """Write a turn of a session as a state file, as `packed_turn`; return its bytes."""
    packed = packed_turn(folder, session, turn, fingerprint, config, title, settings)
    write_durably(file_to_write(path), packed.chunks)
    return packed.nbytes


def begin_session(
    folder: Folder,
    owner: Sequence[str],
    info: StateInfo,
    state: State | None,
    name: str,
    title: str | None,
) -> None:
    """Begin a session of what led to a state: its turns, and the state after the last one."""
    pos = int(state.pos[0]) if state is not None else 0
    start = first_kept(info.config, pos, 0)
    files = [] if state is None else [pack_turn(pieces(state, start), start, pos, info.chain)]
    rows = [
        TurnRow(
            role=record.role,
            text=record.text,
            ids=pack_ids(record.ids),
            tokens=record.tokens,
            chain=record.chain,
            created=record.created,
        )
        for record in info.records
    ]
    rows[-1] = replace(rows[-1], pending=pack_ids(info.pending))
    title = info.title if title is None else title
    settings = {"model": info.model} if info.model else {}
    file_bytes = sum(file.nbytes for file in files)
    needed = (
        session_bytes(title, settings, len(rows)) + sum(row.nbytes for row in rows) + file_bytes
    )
    with folder.writing(files, needed, owner) as (index, names):
        session = insert_session(
            index,
            key=secrets.token_hex(16),
            namespace=owner[0],
            name=name,
            title=title,
            fingerprint=info.fingerprint,
            config=info.config,
            settings=settings,
        )
        parent: int | None = None
        for row in rows[:-1]:
            parent = insert_turn(index, session, parent, row)
        file, digest = (names[0], files[0].digest) if files else (None, "")
        blob = Blob(file, digest, start, pos, info.chain)
        insert_turn(index, session, parent, rows[-1], blob=blob, file_bytes=file_bytes)


def copy_session(
    source: Folder, session: int, target: Folder, owner: Sequence[str], name: str
) -> None:
    """Copy a session to another folder, with all branches, states, and where it stands.

    It is open, or nobody else has it.
    """
    found = source.index.rows(f"SELECT {SESSION} FROM session WHERE id = :id", {"id": session})[0]
    turns = history.tree_rows(source.index, session)
    files: dict[int, PackedFile] = {}
    for turn in turns:
        if turn["file"] is not None:
            data = source.read_bytes(turn["file"])
            files[turn["id"]] = PackedFile([data], len(data), turn["digest"])
    mark, config = mark_and_config(found)
    settings = plain(found["settings"], f"the settings of the session {found['name']!r}")
    needed = session_bytes(found["title"], settings, len(turns))
    kept = items_of(source.index, session)
    needed += sum(each["nbytes"] for each in turns) + sum(item.nbytes for item in kept)
    with target.writing(list(files.values()), needed, owner) as (index, names):
        named = dict(zip(files, names, strict=True))
        copy = insert_session(
            index,
            key=secrets.token_hex(16),
            namespace=owner[0],
            name=name,
            title=found["title"],
            fingerprint=mark,
            config=config,
            settings=settings,
        )
        keys: dict[int | None, int | None] = {None: None}
        for turn in turns:
            same = ("role", "text", "ids", "tokens", "chain", "pending", "stats", "created")
            key, file = turn["id"], files.get(turn["id"])
            blob = None if turn["pos"] is None else replace(blob_of(turn), name=named.get(key))
            keys[key] = insert_turn(
                index,
                copy,
                keys[turn["parent"]],
                TurnRow(**{column: turn[column] for column in same}),
                blob=blob,
                file_bytes=file.nbytes if file else 0,
                number=turn["number"],
            )
        move_head(index, copy, keys.get(found["head"]), keys.get(found["tip"]))
        insert_items(index, copy, kept)
