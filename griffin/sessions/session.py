"""An open session: a conversation in the hands of one process, standing at one of its turns."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from griffin.engine import Context
from griffin.model import State
from griffin.sessions import history
from griffin.sessions.draft import Draft, count_read, rows_of
from griffin.sessions.errors import SessionBusy, UnknownSession, UnknownTurn
from griffin.sessions.fingerprint import Fingerprint
from griffin.sessions.folder import Folder
from griffin.sessions.index import SESSION
from griffin.sessions.items import Item, insert_items
from griffin.sessions.lease import Lease
from griffin.sessions.names import check_kept, check_name, check_text, new_name, plain_json
from griffin.sessions.quota import MEMBER_BYTES, session_bytes
from griffin.sessions.rows import (
    check_free,
    copy_line,
    copy_tree,
    insert_session,
    insert_turn,
    move_head,
    touch,
)
from griffin.sessions.stored import mark_and_config, plain
from griffin.sessions.tokens import NOTHING, check_ids, pack_ids
from griffin.sessions.transfer import copy_session, export_turn, packed_turn
from griffin.sessions.tree import at_least_one, branches, youngest
from griffin.sessions.turn import Blob, Branch, Turn
from griffin.sessions.turn_file import check_state, first_kept, pack_turn, pieces


class Session:
    """A conversation held by a lease; `Store.create` and `Store.open` make one.

    To be used by one thread at a time, in a `with` block; at its end others may open the session.

    name:        its name.
    fingerprint: of the model it belongs to.
    config:      that model's shape.
    head:        the turn it stands at; None before the first.
    """

    def __init__(self, folder: Folder, owner: Sequence[str], row: int, lease: Lease) -> None:
        self._folder = folder
        self._owner = tuple(owner)
        self._row = row
        self._lease = lease
        with folder.index.transaction() as index:
            touch(index, row)
        found = self._look()
        self.name: str = found["name"]
        self.title: str = found["title"]
        self.settings = plain(found["settings"], f"the settings of the session {self.name!r}")
        self.fingerprint, self.config = mark_and_config(found)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the session back; a second time does nothing."""
        self._lease.release()

    @property
    def durable(self) -> bool:
        """Whether it outlives this process: it lies on a disk, not in memory."""
        return self._folder.durable

    @property
    def tokens(self) -> int:
        """How many tokens the conversation has up to the head, those pending included."""
        return self.head.tokens if self.head else 0

    @property
    def pending(self) -> tuple[int, ...]:
        """The ids at its end that the nearest state has not read; as those of `resume`."""
        return history.unread(self._folder.index, self._row, self.head)[1]

    @property
    def chain(self) -> str:
        """Hash over all tokens up to the head, 32 hexadecimal digits."""
        return self.head.chain if self.head else NOTHING.hex()

    def resume(self) -> Context:
        """Read back where the session stands, each time anew; its state lies on the CPU.

        If the head's own state is not kept, it is the nearest one before, and all ids since are
        pending. Raises StateTorn, naming the file, if one of its files is missing or not what was
        written; the session is never quietly read again instead.
        """
        self._check_held()
        return history.context_at(self._folder, self._row, self.head, self.config, self.fingerprint)

    def commit(
        self,
        *,
        role: str,
        ids: Sequence[int],
        state: State | None,
        pending: Sequence[int],
        text: str | None = None,
        stats: Mapping[str, Any] | None = None,
        before: Sequence[Draft] = (),
        settings: Mapping[str, Any] | None = None,
        items: Sequence[Item] = (),
    ) -> Turn:
        """Keep a finished turn after the head and stand at it; it is on the disk when this returns.

        role:     who said it.
        ids:      its tokens, at least one.
        state:    one row, on any device, that has read all tokens of the conversation but
                  `pending`; it is copied from, not kept. None if it has read none.
        pending:  the ids at the conversation's end that `state` has not read, at least one.
        text:     the turn's text, to be shown later.
        stats:    plain values to keep beside it.
        before:   turns that come first, kept in the same step without a state of their own; `state`
                  has read them, too.
        settings: the plain values kept beside the conversation from now on; None leaves them.
        items:    what was said, under ids that clients know.
        Raises ValueError for parts that do not fit together or the session's model, StorageFull if
        there is no room, SessionBusy if the lease was lost and another went on; then all is as it
        was before.
        """
        self._check_held()
        vocab_size, head = self.config.vocab_size, self.head
        drafts = [*before, Draft(role, ids, text, stats)]
        rows, new = rows_of(
            drafts, vocab_size=vocab_size, tokens=self.tokens, chain=bytes.fromhex(self.chain)
        )
        held = check_ids(pending, vocab_size, "the pending ids")
        base, unread = history.unread(self._folder.index, self._row, head)
        pos = self.fingerprint.position((base and base.pos) or 0, count_read((*unread, *new), held))
        # Where the turn before has no state of its own, this one's file holds its whole window.
        above = head.pos or 0 if head and not before else 0
        start = first_kept(self.config, pos, above)
        last = replace(rows[-1], pending=pack_ids(held))
        files = []
        if state is not None:
            check_state(state, self.config, self.fingerprint.torch_dtype, pos)
            files = [pack_turn(pieces(state, start), start, pos, last.chain)]
        elif pos:
            raise ValueError(f"no state is given, but {pos} tokens are to have been read")
        file_bytes = sum(file.nbytes for file in files)
        nbytes = sum(row.nbytes + MEMBER_BYTES for row in rows) + file_bytes
        nbytes += sum(item.nbytes for item in items)
        beside = plain_json(self.settings if settings is None else settings, "the settings")
        try:
            with self._folder.writing(files, nbytes, self._owner, self._row) as (index, names):
                self._check_unmoved(index)
                parent = head.key if head else None
                for row in rows[:-1]:
                    parent = insert_turn(index, self._row, parent, row)
                name, digest = (names[0], files[0].digest) if files else (None, "")
                blob = Blob(name, digest, start, pos, last.chain)
                insert_turn(index, self._row, parent, last, blob=blob, file_bytes=file_bytes)
                insert_items(index, self._row, items)
                if settings is not None:
                    index.execute(
                        "UPDATE session SET settings = ? WHERE id = ?", (beside, self._row)
                    )
        finally:
            self._look()  # an interrupt may come when the turn is on the disk already
        assert self.head is not None
        self.settings = json.loads(beside)
        return self.head

    def undo(self, turns: int = 1) -> Turn | None:
        """Go back so many turns; return where the session stands then. `redo` goes forward again.

        Raises UnknownTurn if there are not so many, or one cannot stand there.
        """
        at_least_one(turns, "undo")
        line = self.turns()
        if turns > len(line):
            raise UnknownTurn(
                f"the conversation has {len(line)} turns here; {turns} cannot be undone"
            )
        return self._move(line[-turns - 1] if turns < len(line) else None, self._tip)

    def redo(self, turns: int = 1) -> Turn | None:
        """Go forward again, as `undo` came; return where the session stands then.

        Raises UnknownTurn if there are not so many.
        """
        at_least_one(turns, "redo")
        way = history.line(self._folder.index, self._row, self._tip)
        keys = [turn.key for turn in way]
        here = self.head.key if self.head else None
        ahead = way if here is None else way[keys.index(here) + 1 :] if here in keys else []
        if turns > len(ahead):
            raise UnknownTurn(f"there are {len(ahead)} turns to redo, not {turns}")
        return self._move(ahead[turns - 1], self._tip)

    def goto(self, number: int | None, *, keep: bool = True) -> Turn | None:
        """Stand at a turn of any branch, or before the first (None).

        keep: note it on the disk. Otherwise only this object stands there until the next `commit`;
              without one, the session is found where it was.
        `redo` then goes on along the old way, if the turn lies on it, otherwise along the youngest
        turns that follow. Raises UnknownTurn if there is none of that number, or one cannot stand
        there.
        """
        turn = None if number is None else self._at(number)
        return self._move(turn, self._tip_from(turn), keep=keep)

    def fork(
        self,
        name: str | None = None,
        *,
        at: int | None = None,
        title: str | None = None,
        whole: bool = False,
        namespace: str | None = None,
        items: Sequence[Item] = (),
    ) -> str:
        """Make another session of this one's turns; return its name.

        at:        the last turn that comes along; the head if omitted.
        whole:     all branches come along, and it stands at the head, or at turn `at`.
        namespace: where it is to be, of the same owner (`Store.owner`); here if omitted.
        items:     those that it begins with; this session's stay here.
        The two share files, and nothing that happens to one of them shows in the other.
        Raises StorageFull if there is no room for its rows, UnknownTurn and SessionExists, and
        ValueError for the namespace of another.
        """
        self._check_held()
        turn, namespace = self._at(at), self._owner[0] if namespace is None else namespace
        if namespace not in self._owner:
            raise ValueError(
                f"{namespace!r} is no namespace of this session's owner, who has"
                f" {', '.join(map(repr, sorted(set(self._owner))))}"
            )
        if turn is not None:
            history.check_restorable(turn)
        name = check_kept(name) if name is not None else new_name()
        title = self.title if title is None else check_text(title, "the title")
        head = turn.key if turn else None
        tip = self._tip if at is None else self._tip_from(turn)
        turns = self._count() if whole else turn.number if turn else 0  # at most
        nbytes, owner = session_bytes(title, self.settings, turns), (namespace, *self._owner)
        nbytes += sum(item.nbytes for item in items)
        with self._folder.writing([], nbytes, owner) as (index, _):
            target = insert_session(
                index,
                key=secrets.token_hex(16),
                namespace=namespace,
                name=name,
                title=title,
                fingerprint=self.fingerprint,
                config=self.config,
                settings=self.settings,
                parent=self._row,
            )
            if whole:
                copy_tree(index, self._row, target)
                move_head(index, target, head, tip)
            else:
                copy_line(index, self._row, target, head)
            insert_items(index, target, items)
            touch(index, self._row)
        return name

    def copy_to(self, folder: Folder, owner: Sequence[str], name: str) -> None:
        """Copy it to another folder; `Store.adopt` is the way to."""
        self._check_held()
        copy_session(self._folder, self._row, folder, owner, name)

    def turns(self) -> list[Turn]:
        """Return the turns from the first to the head."""
        return history.line(self._folder.index, self._row, self.head and self.head.key)

    def ids(self) -> tuple[int, ...]:
        """Return all tokens up to the head, those pending included.

        Of a session that began with an imported state those before its first turn are not known.
        """
        return tuple(i for turn in self.turns() for i in turn.ids)

    def tree(self) -> list[Turn]:
        """Return all turns of all branches, in the order they were made."""
        return history.tree(self._folder.index, self._row)

    def branches(self) -> list[Branch]:
        """Return all ways through the tree, in the order their last turns were made."""
        return branches(self.tree(), self.head)

    def update(
        self,
        *,
        name: str | None = None,
        title: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Change the name, the title or the plain values kept beside it; None leaves each.

        Raises InvalidName, and SessionExists if the name is taken.
        """
        self._check_held()
        new = self.name if name is None else check_name(name)
        title = self.title if title is None else check_text(title, "the title")
        kept = plain_json(self.settings if settings is None else settings, "the settings")
        with self._folder.index.transaction() as index:
            if name is not None:
                check_free(index, self._owner[0], name)
            index.execute(
                "UPDATE session SET name = ?, title = ?, settings = ? WHERE id = ?",
                (new, title, kept, self._row),
            )
        self.name, self.title, self.settings = new, title, json.loads(kept)

    def begin_anew(self, fingerprint: Fingerprint) -> None:
        """Forget every turn and belong to another model of the same shape; its items stay."""
        self._check_held()
        assert fingerprint.config == self.fingerprint.config
        self._folder.begin_anew(self._row, fingerprint)
        self.fingerprint = mark_and_config(self._look())[0]

    def export(self, path: str | Path, *, at: int | None = None) -> int:
        """Write the head, or turn `at`, as a state file that can go anywhere; return its bytes.

        The state of that one turn goes with it, and the text and tokens of those before it.
        """
        self._check_held()
        about = (self.fingerprint, self.config, self.title, self.settings)
        return export_turn(self._folder, self._row, self._at(at), *about, path)

    def exported(self) -> bytes:
        """Return the head as a state file, which `unpack_state` reads."""
        about = (self.fingerprint, self.config, self.title, self.settings)
        return b"".join(packed_turn(self._folder, self._row, self.head, *about).chunks)

    def _move(self, turn: Turn | None, tip: int | None, *, keep: bool = True) -> Turn | None:
        self._check_held()
        if turn is not None:
            history.check_restorable(turn)
        if keep:
            with self._folder.index.transaction() as index:
                self._check_unmoved(index)
                move_head(index, self._row, turn.key if turn else None, tip)
            self._kept_head = turn.key if turn else None
        self.head, self._tip = turn, tip
        return turn

    def _at(self, number: int | None) -> Turn | None:
        if number is None:
            return self.head
        return history.turn(self._folder.index, self._row, number=number)

    def _tip_from(self, turn: Turn | None) -> int | None:
        """Return where `redo` leads from a turn."""
        if turn is None or history.on_way(self._folder.index, turn, self._tip):
            return self._tip
        return youngest(self.tree(), turn).key

    def _count(self) -> int:
        query = "SELECT count(*) FROM member WHERE session = :session"
        return self._folder.index.rows(query, {"session": self._row})[0][0]

    def _look(self) -> sqlite3.Row:
        """Read where the session stands; return its row."""
        found = self._folder.index.row(
            f"SELECT {SESSION} FROM session WHERE id = :id", {"id": self._row}
        )
        if found is None:
            raise UnknownSession("the session was deleted while it was being opened")
        head = found["head"]
        self.head = None if head is None else history.head(self._folder.index, self._row, head)
        self._tip: int | None = found["tip"]
        self._kept_head: int | None = head  # what the disk has, from which `goto` may have gone
        return found

    def _check_unmoved(self, index: sqlite3.Connection) -> None:
        """Raise SessionBusy, and give the session back, if it does not stand where we left it.

        On a network the file server keeps the lease: a machine that is cut off for long enough
        loses it without being told.
        """
        row = index.execute("SELECT head FROM session WHERE id = ?", (self._row,)).fetchone()
        if row is None or row["head"] != self._kept_head:
            self._lease.release()
            raise SessionBusy(
                f"the session {self.name!r} was gone on with elsewhere; its lease was lost, so open"
                " it again"
            )

    def _check_held(self) -> None:
        if not self._lease.held:
            raise ValueError(f"the session {self.name!r} was closed; open it again")
