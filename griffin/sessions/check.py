"""Everything that can be wrong with a store, looked for."""

from __future__ import annotations

import json
from collections.abc import Iterator

from griffin.model import GriffinConfig
from griffin.sessions import history
from griffin.sessions.errors import SessionError
from griffin.sessions.fingerprint import Fingerprint, config_digest
from griffin.sessions.folder import Folder
from griffin.sessions.tokens import NOTHING, extend_chain
from griffin.sessions.turn import Turn, blob_of
from griffin.sessions.turn_file import first_kept, verify


def problems(folder: Folder) -> Iterator[str]:
    """Yield one sentence for each problem: the index's own, each session's, and files too many."""
    index = folder.index
    for (said,) in index.rows("PRAGMA integrity_check"):
        if said != "ok":
            yield f"{index.path}: {said}"
    for row in index.rows("PRAGMA foreign_key_check"):
        yield (
            f"{index.path}: row {row['rowid']} of {row['table']} refers to a {row['parent']} that"
            " is gone"
        )
    checked: set[int] = set()
    for row in index.rows(
        "SELECT id, name, fingerprint, config, head, tip FROM session ORDER BY id"
    ):
        what = f"session {row['name']!r}"
        try:
            config = GriffinConfig.from_dict(json.loads(row["config"]))
            fingerprint = Fingerprint.from_dict(json.loads(row["fingerprint"]))
        except (ValueError, TypeError) as error:
            yield f"{what}: its config or fingerprint cannot be read ({error})"
            continue
        if fingerprint.config != config_digest(config):
            yield f"{what}: its fingerprint is that of another config"
        turns = {turn.key: turn for turn in history.tree(index, row["id"])}
        for place in ("head", "tip"):
            if row[place] is not None and row[place] not in turns:
                yield f"{what}: its {place} is a turn it does not have"
        # Forks share the others.
        fresh = [turn for key, turn in turns.items() if key not in checked]
        checked |= turns.keys()
        numbers = {turn.number: turn for turn in turns.values()}
        for turn in fresh:
            for problem in _turn_problems(folder, turn, numbers, config, fingerprint):
                yield f"{what}, turn {turn.number}: {problem}"
    named = {row[0] for row in index.rows("SELECT file FROM turn WHERE file IS NOT NULL")}
    for name in sorted(set(folder.blobs_there()) - named):
        yield (
            f"no turn of {folder} names the file {name}; opening the store removes it, unless"
            " somebody is writing it now"
        )


def _turn_problems(
    folder: Folder,
    turn: Turn,
    turns: dict[int, Turn],
    config: GriffinConfig,
    fingerprint: Fingerprint,
) -> Iterator[str]:
    index = folder.index
    above = turns.get(turn.parent) if turn.parent is not None else None
    row = index.row("SELECT * FROM turn WHERE id = :id", {"id": turn.key})
    if row is None:
        return  # deleted since
    if row["parent"] is not None and above is None:
        yield "the turn before it is not the session's"
        return
    before, chain = (above.tokens, above.chain) if above else (0, NOTHING.hex())
    known = before + len(turn.ids) == turn.tokens
    if not known and above is not None:
        yield (
            f"it has {len(turn.ids)} ids, and {turn.tokens - before} tokens more than the turn"
            " before it"
        )
    if known and extend_chain(bytes.fromhex(chain), turn.ids).hex() != turn.chain:
        yield "its tokens are not those its hash was made of"
    if not turn.kept:
        return
    blob = blob_of(row)
    up = index.row("SELECT pos FROM turn WHERE id = :id", {"id": row["parent"]})
    # After a turn without a state of its own all positions of the window are in this one's file.
    start = first_kept(config, blob.pos, up["pos"] or 0 if up else 0)
    if blob.start != start:
        yield f"its file begins at position {blob.start}; it should at {start}"
    if blob.name is None:
        if blob.pos:
            yield f"it has no file, and has read up to position {blob.pos}"
        return
    try:
        verify(folder, blob, config, fingerprint.torch_dtype)
    except SessionError as error:
        yield str(error)
