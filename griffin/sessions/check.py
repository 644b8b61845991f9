"""Everything that can be wrong with a store, looked for."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from griffin.model import GriffinConfig
from griffin.sessions.errors import SessionError
from griffin.sessions.fingerprint import Fingerprint
from griffin.sessions.folder import Folder
from griffin.sessions.index import SESSION, TURNS, Index
from griffin.sessions.items import body_of
from griffin.sessions.stored import REMEDY, mark_and_config, plain, wrong
from griffin.sessions.tokens import NOTHING, check_ids, extend_chain, unpack_ids
from griffin.sessions.turn import blob_of
from griffin.sessions.turn_file import first_kept, verify


def problems(folder: Folder) -> Iterator[str]:
    """Yield a line for each problem and what to do about it: the index's own, each session's, and
    files too many."""
    for said in _found(folder):
        # sqlite says some things in several lines, and damage may be of any letter.
        yield "".join(letter for letter in " ".join(said.split()) if letter.isprintable())


def _found(folder: Folder) -> Iterator[str]:
    yield from _caught(folder.strange())
    try:
        with folder.index.anew() as index:  # as the disk has it
            for part in (_of_index, _of_references, _of_sessions, _of_items, _of_files):
                yield from _caught(part(folder, index))
    except (SessionError, OSError) as error:
        yield str(error)


def _caught(found: Iterator[str]) -> Iterator[str]:
    """Yield what is found, and why it could not go on."""
    try:
        yield from found
    except (SessionError, OSError) as error:
        yield str(error)


def _of_index(folder: Folder, index: Index) -> Iterator[str]:
    for (said,) in index.any_rows("PRAGMA integrity_check"):
        if said != "ok":
            yield f"{index.path}: {said}; restore it from a copy"


def _of_references(folder: Folder, index: Index) -> Iterator[str]:
    for row in index.any_rows("PRAGMA foreign_key_check"):
        yield (
            f"{index.path}: row {row['rowid']} of {row['table']} refers to a {row['parent']} that"
            f" is gone; {REMEDY}"
        )


def _of_sessions(folder: Folder, index: Index) -> Iterator[str]:
    checked: set[int] = set()
    for row in index.any_rows(f"SELECT {SESSION} FROM session ORDER BY id"):
        what = f"session {row['name']!r:.150}"
        if said := wrong(row):
            yield f"{what}: {said}; {REMEDY}"
            continue
        try:
            mark, config = mark_and_config(row)
            plain(row["settings"], "its settings")
        except SessionError as error:
            yield f"{what}: {error}"
            continue
        turns = index.any_rows(f"{TURNS} ORDER BY member.number", {"session": row["id"]})
        sound = {turn["id"]: turn for turn in turns if not wrong(turn)}
        for place in ("head", "tip"):
            if row[place] is not None and row[place] not in (turn["id"] for turn in turns):
                yield f"{what}: its {place} is a turn it does not have; {REMEDY}"
        for turn in turns:
            if turn["id"] in checked:
                continue  # forks share it
            checked.add(turn["id"])
            which = f"{what}, turn {turn['number']}"
            if said := wrong(turn):
                yield f"{which}: {said}; go to a turn before it, or delete the session"
                continue
            try:
                for said in _turn_problems(folder, turn, sound, config, mark):
                    yield f"{which}: {said}"
            except (SessionError, OSError) as error:
                yield f"{which}: {error}"


def _turn_problems(
    folder: Folder,
    turn: sqlite3.Row,
    turns: dict[int, sqlite3.Row],
    config: GriffinConfig,
    mark: Fingerprint,
) -> Iterator[str]:
    """Yield what is wrong with a turn whose row is sound. turns: those of its session, by key."""
    plain(turn["stats"], "what is kept beside it")
    above = turns.get(turn["parent"]) if turn["parent"] is not None else None
    if turn["parent"] is not None and above is None:
        yield f"the turn before it is damaged; {REMEDY}"
        return
    before, chain = (above["tokens"], above["chain"]) if above else (0, NOTHING.hex())
    ids = unpack_ids(turn["ids"])
    try:
        check_ids((*ids, *unpack_ids(turn["pending"])), config.vocab_size, "its tokens")
    except ValueError as error:
        yield f"{error}; {REMEDY}"
        return
    known = before + len(ids) == turn["tokens"]
    if not known and above is not None:
        yield (
            f"it has {len(ids)} ids, and {turn['tokens'] - before} tokens more than the turn"
            f" before it; {REMEDY}"
        )
    if known and extend_chain(bytes.fromhex(chain), ids).hex() != turn["chain"]:
        yield f"its tokens are not those its hash was made of; {REMEDY}"
    if turn["pos"] is None:
        return
    blob = blob_of(turn)
    read = turn["tokens"] - len(unpack_ids(turn["pending"]))
    if blob.pos != mark.position(0, read):
        yield f"its state stands at {blob.pos}, after {read} tokens that it has read; {REMEDY}"
    # After a turn without a state of its own all positions of the window are in this one's file.
    start = first_kept(config, blob.pos, above["pos"] or 0 if above else 0)
    if blob.start != start:
        yield f"its file begins at position {blob.start}; it should at {start}; {REMEDY}"
    if blob.name is not None:
        try:
            verify(folder, blob, config, mark.torch_dtype)
        except SessionError as error:
            yield f"{error}; {REMEDY}"


def _of_items(folder: Folder, index: Index) -> Iterator[str]:
    for (id,) in index.any_rows("SELECT id FROM item ORDER BY id"):
        row = index.any_rows("SELECT * FROM item WHERE id = :id", {"id": id})[0]
        what = f"item {row['ref']!r:.150} of session {row['session']!r:.30}"
        if said := wrong(row):
            yield f"{what}: {said}; {REMEDY}"
            continue
        try:
            body_of(row)
        except SessionError as error:
            yield f"{what}: {error}"


def _of_files(folder: Folder, index: Index) -> Iterator[str]:
    named = {row[0] for row in index.any_rows("SELECT file FROM turn")}
    for name in sorted(set(folder.blobs_there()) - named):
        yield (
            f"no turn of {folder} names the file {name}; opening the store removes it, unless"
            " somebody is writing it now"
        )
