"""An open session: a conversation in the hands of one process, standing at one of its turns."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from griffin.engine import Context, Seen
from griffin.model import GriffinConfig, State
from griffin.sessions import history
from griffin.sessions.changes import (
    check_free,
    copy_line,
    insert_session,
    insert_turn,
    move_head,
    touch,
    turn_bytes,
)
from griffin.sessions.errors import SessionBusy, UnknownSession, UnknownTurn
from griffin.sessions.exchange import export_turn
from griffin.sessions.fingerprint import Fingerprint
from griffin.sessions.lease import Lease
from griffin.sessions.names import check_name, check_text, new_name, plain_json
from griffin.sessions.room import MEMBER_BYTES, session_bytes
from griffin.sessions.tokens import NOTHING, check_ids, extend_chain, pack_ids
from griffin.sessions.tree import branches, read_ids, youngest
from griffin.sessions.turn import Blob, Branch, Turn
from griffin.sessions.turn_file import check_state, first_kept, pack_turn, pieces

if TYPE_CHECKING:
    from griffin.sessions.store import Store


class Session:
    """A conversation held by a lease: `Store.create` and `Store.open` make one. Used by one thread
    at a time.

    name:        its name.
    fingerprint: of the model it belongs to.
    config:      that model's shape.
    head:        the turn it stands at; None before the first.
    Use it in a `with` block; at the end others may open it.
    """

    def __init__(self, store: Store, row: int, lease: Lease) -> None:
        self._store = store
        self._row = row
        self._lease = lease
        with store.index.transaction() as index:
            touch(index, row)
        found = self._look()
        self.name: str = found["name"]
        self.title: str = found["title"]
        self.settings: dict[str, Any] = json.loads(found["settings"])
        self.fingerprint = Fingerprint.from_dict(json.loads(found["fingerprint"]))
        self.config = GriffinConfig.from_dict(json.loads(found["config"]))

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the session back; a second time does nothing."""
        self._lease.release()

    @property
    def tokens(self) -> int:
        """How many tokens the conversation has up to the head, those pending included."""
        return self.head.tokens if self.head else 0

    @property
    def pending(self) -> tuple[int, ...]:
        """The ids at its end that the state has not read."""
        return self.head.pending if self.head else ()

    @property
    def chain(self) -> str:
        """Hash over all tokens up to the head, 32 hexadecimal digits."""
        return self.head.chain if self.head else NOTHING.hex()

    def resume(self) -> Context:
        """Read back where the session stands, each time anew; its state lies on the CPU.

        Raises StateTorn, naming the file, if one of its files is missing or not what was written:
        the session is not guessed at or read again behind the caller's back.
        """
        self._check_held()
        store, head = self._store, self.head
        state = history.state_after(store.index, store.blobs, head, self.config, self.fingerprint)
        seen = Seen() if head is None else Seen(lambda: read_ids(self._line(head)))
        return Context(state=state, pending=self.pending, seen=seen, tokens=self.tokens)

    def commit(
        self,
        *,
        role: str,
        ids: Sequence[int],
        state: State | None,
        pending: Sequence[int],
        text: str | None = None,
        stats: Mapping[str, Any] | None = None,
    ) -> Turn:
        """Keep a finished turn after the head and stand at it; it is on the disk when this returns.

        role:    who said it.
        ids:     its tokens, at least one.
        state:   one row that has read all tokens of the conversation but `pending`; it is copied
                 from, not kept. None if it has read none.
        pending: the ids at the conversation's end that `state` has not read, at least one.
        text:    the turn's text, to be shown later.
        stats:   plain values to keep beside it.
        Raises ValueError for parts that do not fit together or the session's model, StorageFull if
        there is no room, SessionBusy if the lease was lost and another went on; then all is as it
        was before.
        """
        self._check_held()
        turn_ids = check_ids(ids, self.config.vocab_size, "the turn's ids")
        held = check_ids(pending, self.config.vocab_size, "the pending ids")
        check_text(role, "the role")
        if text is not None:
            check_text(text, "the text")
        read = self._read(turn_ids, held)
        before = self._pos()
        pos, chain = before + read, extend_chain(bytes.fromhex(self.chain), turn_ids).hex()
        packed_ids, packed_pending = pack_ids(turn_ids), pack_ids(held)
        kept_stats = plain_json(stats, "the stats")
        start = first_kept(self.config, pos, before)
        packed = None
        if state is not None:
            check_state(state, self.config, self.fingerprint.torch_dtype, pos)
            packed = pack_turn(pieces(state, start), start, pos, chain)
        elif pos:
            raise ValueError(f"no state is given, but {pos} tokens are to have been read")
        nbytes = turn_bytes(packed.nbytes if packed else 0, packed_ids, text, kept_stats)
        try:
            with self._store.writing(packed, nbytes + MEMBER_BYTES, self._row) as (index, file):
                self._check_unmoved(index)
                insert_turn(
                    index,
                    self._row,
                    self.head.key if self.head else None,
                    role=role,
                    text=text,
                    ids=packed_ids,
                    tokens=self.tokens + len(turn_ids),
                    chain=chain,
                    pending=packed_pending,
                    blob=Blob(file, packed.digest if packed else "", start, pos, chain),
                    nbytes=nbytes,
                    stats=kept_stats,
                    created=time.time(),
                )
        finally:
            self._look()  # an interrupt may come when the turn is on the disk already
        assert self.head is not None
        return self.head

    def undo(self, turns: int = 1) -> Turn | None:
        """Go back so many turns and return where the session stands then; `redo` goes forward
        again.

        Raises UnknownTurn if there are not so many, or the state there was never here.
        """
        _at_least_one(turns, "undo")
        line = self.turns()
        if turns > len(line):
            raise UnknownTurn(
                f"the conversation has {len(line)} turns here; {turns} cannot be undone"
            )
        return self._move(line[-turns - 1] if turns < len(line) else None, self._tip)

    def redo(self, turns: int = 1) -> Turn | None:
        """Go forward so many turns, along the way that was left by `undo`, and return where it
        stands then.

        Raises UnknownTurn if there are not so many.
        """
        _at_least_one(turns, "redo")
        way = history.line(self._store.index, self._row, self._tip)
        ahead = way[[turn.key for turn in way].index(self.head.key) + 1 :] if self.head else way
        if turns > len(ahead):
            raise UnknownTurn(f"there are {len(ahead)} turns to redo, not {turns}")
        return self._move(ahead[turns - 1], self._tip)

    def goto(self, number: int | None, *, keep: bool = True) -> Turn | None:
        """Stand at a turn of any branch, or before the first (None).

        keep: note it on the disk. Otherwise only this object stands there, and the next `commit`
              makes it so; if there is none, the session is found where it was.
        `redo` then leads on along the way it was on, if the turn lies on it, otherwise along the
        youngest turns that follow. Raises UnknownTurn if there is none of that number, or its state
        was never here.
        """
        index, tip = self._store.index, self._tip
        turn = None if number is None else history.turn(index, self._row, number=number)
        if turn is not None and turn.key not in {
            other.key for other in history.line(index, self._row, tip)
        }:
            tip = youngest(self.tree(), turn).key
        return self._move(turn, tip, keep=keep)

    def fork(
        self, name: str | None = None, *, at: int | None = None, title: str | None = None
    ) -> str:
        """Make another session of this one's turns, up to the head or to turn `at`, and return its
        name.

        It shares their files, and nothing that happens to one of the two is seen by the other.
        Raises StorageFull if there is no room for its rows.
        """
        self._check_held()
        turn = self._at(at)
        if turn is not None:
            history.check_restorable(turn)
        name = check_name(name) if name is not None else new_name()
        title = self.title if title is None else check_text(title, "the title")
        turns = turn.number if turn else 0  # at most
        with self._store.writing(None, session_bytes(title, self.settings, turns)) as (index, _):
            target = insert_session(
                index,
                key=secrets.token_hex(16),
                namespace=self._store.namespace,
                name=name,
                title=title,
                fingerprint=self.fingerprint,
                config=self.config,
                settings=self.settings,
                parent=self._row,
            )
            copy_line(index, self._row, target, turn.key if turn else None)
            touch(index, self._row)
        return name

    def turns(self) -> list[Turn]:
        """Return the turns from the first to the head."""
        return self._line(self.head)

    def ids(self) -> tuple[int, ...]:
        """Return all tokens up to the head, those pending included.

        Of a session that began with an imported state those read before its first turn are not
        known.
        """
        return tuple(i for turn in self.turns() for i in turn.ids)

    def tree(self) -> list[Turn]:
        """Return all turns of all branches, in the order they were made."""
        return history.tree(self._store.index, self._row)

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
        """Change the name, the title, or the plain values kept beside the conversation; None leaves
        them.

        Raises InvalidName, and SessionExists if the name is taken.
        """
        self._check_held()
        new = self.name if name is None else check_name(name)
        title = self.title if title is None else check_text(title, "the title")
        kept = plain_json(self.settings if settings is None else settings, "the settings")
        with self._store.index.transaction() as index:
            if name is not None:
                check_free(index, self._store.namespace, name)
            index.execute(
                "UPDATE session SET name = ?, title = ?, settings = ? WHERE id = ?",
                (new, title, kept, self._row),
            )
        self.name, self.title, self.settings = new, title, json.loads(kept)

    def export(self, path: str | Path, *, at: int | None = None) -> int:
        """Write the head, or turn `at`, as a state file that can be carried anywhere; return its
        bytes.

        The state of that one turn goes with it, and the text and tokens of those before it.
        """
        self._check_held()
        store = self._store
        return export_turn(
            store, self._row, self._at(at), self.fingerprint, self.config, self.title, path
        )

    def _line(self, turn: Turn | None) -> list[Turn]:
        return history.line(self._store.index, self._row, turn.key if turn else None)

    def _move(self, turn: Turn | None, tip: int | None, *, keep: bool = True) -> Turn | None:
        self._check_held()
        if turn is not None:
            history.check_restorable(turn)
        if keep:
            with self._store.index.transaction() as index:
                self._check_unmoved(index)
                move_head(index, self._row, turn.key if turn else None, tip)
            self._kept_head = turn.key if turn else None
        self.head, self._tip = turn, tip
        return turn

    def _read(self, ids: tuple[int, ...], pending: tuple[int, ...]) -> int:
        """Return how many tokens more than the head's this turn's state has read; ValueError if it
        cannot."""
        if not ids:
            raise ValueError("a turn has at least one token")
        if not pending:
            raise ValueError(
                "nothing is pending; a state cannot step back, so keep the one before the last"
                " token, and that token as pending"
            )
        unread = (*self.pending, *ids)
        if len(pending) > len(unread) or unread[-len(pending) :] != pending:
            raise ValueError(
                f"the {len(pending)} pending ids are not the last of the {len(unread)} that were to"
                " be read"
            )
        return len(unread) - len(pending)

    def _pos(self) -> int:
        if self.head is None:
            return 0
        row = self._store.index.row("SELECT pos FROM turn WHERE id = :id", {"id": self.head.key})
        assert row is not None
        return row["pos"]

    def _at(self, number: int | None) -> Turn | None:
        return (
            self.head
            if number is None
            else history.turn(self._store.index, self._row, number=number)
        )

    def _look(self) -> sqlite3.Row:
        """Read where the session stands; return its row."""
        found = self._store.index.row("SELECT * FROM session WHERE id = :id", {"id": self._row})
        if found is None:
            raise UnknownSession("the session was deleted while it was being opened")
        head = found["head"]
        self.head = (
            history.turn(self._store.index, self._row, key=head) if head is not None else None
        )
        self._tip: int | None = found["tip"]
        self._kept_head: int | None = head  # what the disk has, from which `goto` may have gone
        return found

    def _check_unmoved(self, index: sqlite3.Connection) -> None:
        """Raise SessionBusy, and give the session back, if it does not stand where we left it.

        A lease on a network is the file server's: cut off from it for long enough, one loses it
        unawares.
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


def _at_least_one(turns: int, what: str) -> None:
    if not isinstance(turns, int) or isinstance(turns, bool) or turns < 1:
        raise ValueError(f"{what} takes 1 or more turns, not {turns!r}")
