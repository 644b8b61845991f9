"""A folder of conversations that outlive the process."""

from __future__ import annotations

import copy
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from griffin.model import GriffinConfig, State
from griffin.sessions import history, items
from griffin.sessions.check import problems
from griffin.sessions.disk_folder import DiskFolder
from griffin.sessions.errors import StateTorn, unknown_session
from griffin.sessions.fingerprint import Fingerprint, config_digest
from griffin.sessions.folder import Folder
from griffin.sessions.index import SESSION
from griffin.sessions.items import Item, Side
from griffin.sessions.lease import Lease
from griffin.sessions.memory_folder import MemoryFolder
from griffin.sessions.names import (
    UNFINISHED,
    check_kept,
    check_name,
    check_namespace,
    check_text,
    new_name,
)
from griffin.sessions.quota import session_bytes
from griffin.sessions.rows import check_free, insert_session, touch
from griffin.sessions.session import Session
from griffin.sessions.session_info import HAS_WORDS, INFOS, USAGE, SessionInfo, StoreUsage, info_of
from griffin.sessions.state_file import load_state_file
from griffin.sessions.state_info import StateInfo
from griffin.sessions.stored import mark_and_config, plain
from griffin.sessions.transfer import begin_session, export_turn
from griffin.sessions.turn import Turn


class Store:
    """Sessions in a folder of mode 0700, for any number of processes.

    folder:          made if it is not there. One that others may look into is refused, unless it is
                     empty. `Store.in_memory()` makes a store without one.
    namespace:       whose sessions: they see and count only their own. "" or the form of a name,
                     such as the digest of an API key.
    quota_bytes:     most bytes of all namespaces together. An owner's own sessions make room for
                     what is new, those unused for longest first.
    max_age_seconds: a session unused for longer is removed by `sweep`.
    network:         the folder may be shared by several machines: the index keeps a rollback
                     journal, which holds where file locks do. A folder that was opened so once
                     stays so, whoever opens it.

    A namespace has at most MOST_SESSIONS sessions; if there is a quota, the one unused for longest
    makes room for the next. An open session is never removed. Files that a killed process left
    unfinished are removed. A process that forks makes a Store of its own in the child. Raises
    StateTorn for an index that is not ours or not whole, and ValueError for a folder on a network
    without `network`, or one whose locks other machines do not see.

    `owner` holds the namespace, and others of the same owner.
    """

    def __init__(
        self,
        folder: str | Path | Folder,
        *,
        namespace: str = "",
        quota_bytes: int | None = None,
        max_age_seconds: float | None = None,
        network: bool = False,
    ) -> None:
        self.owner: tuple[str, ...] = (check_namespace(namespace),)
        for name, limit in (("quota_bytes", quota_bytes), ("max_age_seconds", max_age_seconds)):
            if limit is not None and limit <= 0:
                raise ValueError(f"{name} must be positive, or None for no limit, not {limit!r}")
        if not isinstance(folder, Folder):
            folder = DiskFolder(Path(folder), network=network)
        self.folder = folder
        self.folder.quota_bytes, self.folder.max_age_seconds = quota_bytes, max_age_seconds
        self.recover()

    @classmethod
    def in_memory(cls) -> Store:
        """Make a store in memory, for as long as it, or a session of it, is in use."""
        return cls(MemoryFolder())

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index, for all namespaces of this store."""
        self.folder.index.close()

    def within(self, namespace: str, beside: Sequence[str] = ()) -> Store:
        """Return this store for another owner.

        beside: other namespaces of that owner. They make room, too, and sessions can be forked
                into them.
        """
        other = copy.copy(self)
        other.owner = tuple(map(check_namespace, (namespace, *beside)))
        return other

    @property
    def namespace(self) -> str:
        return self.owner[0]

    def create(
        self,
        name: str | None = None,
        *,
        fingerprint: Fingerprint,
        config: GriffinConfig,
        title: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> Session:
        """Begin a session and open it; without a name it gets a random one (`unfinished_name`).

        fingerprint: of the model; its `config` is the digest of `config`.
        settings:    plain values to keep beside it.
        Raises InvalidName, SessionExists, StorageFull, and ValueError for a fingerprint of another
        config.
        """
        name = check_kept(name) if name is not None else new_name()
        check_text(title, "the title")
        if fingerprint.config != config_digest(config):
            raise ValueError(
                "the fingerprint's config is not the digest of the config given with it"
            )
        folder, key, lease = self.folder, secrets.token_hex(16), None
        try:
            with folder.writing([], session_bytes(title, settings), self.owner) as (index, _):
                # While it is in no list, and nobody takes its lock for a lost one.
                lease = folder.lease(key, f"the session {name!r}")
                row = insert_session(
                    index,
                    key=key,
                    namespace=self.namespace,
                    name=name,
                    title=title,
                    fingerprint=fingerprint,
                    config=config,
                    settings=settings or {},
                )
            return Session(folder, self.owner, row, lease)
        except BaseException:
            if lease is not None:
                folder.discard_lock(key)
                lease.release()
            raise

    def open(self, name: str, fingerprint: Fingerprint) -> Session:
        """Open a session for the model of this fingerprint.

        Raises UnknownSession, SessionBusy if it is open elsewhere, and StateMismatch, which says
        what differs.
        """
        row = self._find(name)
        lease = self._lease(row)
        try:
            session = Session(self.folder, self.owner, row["id"], lease)
            session.fingerprint.require(fingerprint, f"the session {name!r}")
        except BaseException:
            lease.release()
            raise
        return session

    def list(self, words: str = "") -> tuple[SessionInfo, ...]:
        """Return the namespace's sessions, those used last first.

        words: those alone that have them in their title or in the text of a turn, on any branch;
               letters A to Z in either case.
        One whose row is damaged is left out; `check` names it, and so does opening it.
        """
        where = (
            "WHERE session.namespace = :namespace AND substr(session.name, 1, 1) <> :unfinished "
            f"AND {HAS_WORDS} ORDER BY session.used DESC, session.id DESC"
        )
        values = {"namespace": self.namespace, "unfinished": UNFINISHED, "words": words}
        found: list[SessionInfo] = []
        for row in self.folder.index.sound_rows(INFOS + where, values):
            with suppress(StateTorn):
                found.append(info_of(row))
        return tuple(found)

    def show(self, name: str) -> SessionInfo:
        """Return what the list says of one session; UnknownSession if there is none."""
        query = INFOS + "WHERE session.id = :id"
        row = self.folder.index.row(query, {"id": self._find(name)["id"]})
        if row is None:
            raise unknown_session(name, self.namespace)
        return info_of(row)

    def busy(self, name: str) -> bool:
        """Return whether a session is open, here or in another process, without taking it."""
        return self.folder.leased(self._find(name, "key")["key"])

    def turns(self, name: str) -> tuple[Turn, ...]:
        """Return all turns of a session, oldest first, of all branches; it may be open."""
        return tuple(history.tree(self.folder.index, self._find(name, "id")["id"]))

    def items(
        self,
        name: str,
        *,
        side: Side | None = None,
        after: str | None = None,
        limit: int | None = None,
        newest: bool = False,
        most_bytes: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return the items of a session, all or a page of them; it may be open. As `items.page`."""
        return items.page(
            self.folder.index,
            self._find(name, "id")["id"],
            side=side,
            after=after,
            limit=limit,
            newest=newest,
            most_bytes=most_bytes,
        )

    def item(self, name: str, ref: str) -> dict[str, Any]:
        """Return one item of a session; UnknownItem if it has none of that id."""
        return items.one(self.folder.index, self._find(name, "id")["id"], ref)

    def find_items(
        self, refs: Sequence[str], most_bytes: int | None = None
    ) -> dict[str, dict[str, Any]]:
        """Return those of these ids that any session of the owner has. As `items.find`."""
        return items.find(self.folder.index, self.owner, refs, most_bytes)

    def add_items(self, name: str, more: Sequence[Item]) -> list[dict[str, Any]]:
        """Add items to a session, and return them as kept: an id that is taken becomes another.

        Raises SessionBusy if it is open, StorageFull if there is no room.
        """
        row = self._find(name)
        lease = self._lease(row)
        try:
            nbytes = sum(item.nbytes for item in more)
            with self.folder.writing([], nbytes, self.owner, row["id"]) as (index, _):
                touch(index, row["id"])
                return [dict(item.body) for item in items.insert_items(index, row["id"], more)]
        finally:
            lease.release()

    def remove_item(self, name: str, ref: str) -> None:
        """Remove an item of a session for good. SessionBusy if it is open, UnknownItem."""
        row = self._find(name)
        lease = self._lease(row)
        try:
            with self.folder.index.transaction() as index:
                items.remove_item(index, row["id"], ref)
            self.folder.index.forget()
        finally:
            lease.release()

    def usage(self) -> StoreUsage:
        """Return what the store holds, of all namespaces."""
        sessions, turns, nbytes = self.folder.index.rows(USAGE)[0]
        return StoreUsage(sessions=sessions, turns=turns, nbytes=nbytes)

    def rename(self, name: str, to: str) -> None:
        """Give a session another name; SessionBusy if it is open, SessionExists if taken."""
        check_name(to)
        row = self._find(name)
        lease = self._lease(row)
        try:
            with self.folder.index.transaction() as index:
                check_free(index, self.namespace, to)
                done = index.execute("UPDATE session SET name = ? WHERE id = ?", (to, row["id"]))
                if not done.rowcount:
                    raise unknown_session(name, self.namespace)
        finally:
            lease.release()

    def delete(self, name: str) -> None:
        """Delete a session: overwrite its row, text and tokens, remove its files.

        Turns it shares with forks stay theirs. Raises SessionBusy if it is open.
        """
        row = self._find(name, "id, key, name")  # whatever else it holds
        lease = self._lease(row)
        try:
            self.folder.remove(row["id"], row["key"])
        finally:
            lease.release()

    def export(self, name: str, path: str | Path, *, at: int | None = None) -> int:
        """Write a session's head, or turn `at`, as a state file; return its bytes. It may be open.

        Raises UnknownTurn for a number it does not have, and for a session without turns.
        """
        row = self._find(name)
        fingerprint, config = mark_and_config(row)
        turn: Turn | None = None
        if at is not None or row["head"] is not None:
            turn = history.turn(
                self.folder.index, row["id"], number=at, key=row["head"] if at is None else None
            )
        settings = plain(row["settings"], f"the settings of the session {name!r}")
        about = (row["title"], settings, path)
        return export_turn(self.folder, row["id"], turn, fingerprint, config, *about)

    def import_(
        self,
        path: str | Path,
        name: str | None = None,
        *,
        fingerprint: Fingerprint | None = None,
        title: str | None = None,
    ) -> SessionInfo:
        """Begin a session from a state file, after checking all of it.

        fingerprint: the model's; without one the file's own is believed, and checked when the
                     session is opened.
        title:       the file's own if omitted.
        Its turns come along as text and ids, with the state of the last one; one can stand at those
        before it as far as their ids are known. Errors as for `load_state_file` and `create`.
        """
        return self.import_state(*load_state_file(path, fingerprint), name, title=title)

    def import_state(
        self,
        info: StateInfo,
        state: State | None,
        name: str | None = None,
        *,
        title: str | None = None,
    ) -> SessionInfo:
        """Begin a session from a state and its StateInfo; otherwise as `import_`."""
        name = check_name(name) if name is not None else new_name()
        if title is not None:
            check_text(title, "the title")
        begin_session(self.folder, self.owner, info, state, name, title)
        return self.show(name)

    def adopt(self, session: Session, name: str | None = None) -> str:
        """Copy a session of another store into this one, and return its name here.

        All of its branches and states come along. It stays open where it is. Errors as for
        `create`.
        """
        name = check_name(name) if name is not None else new_name()
        session.copy_to(self.folder, self.owner, name)
        return name

    def sweep(self) -> int:
        """Remove what is too old and, over the quota, longest unused; return how many.

        Of all owners. Open sessions stay.
        """
        return self.folder.sweep()

    def carrying(self) -> AbstractContextManager[Path]:
        """Give a place for a state file between two namespaces; it is removed at the end.

        If this process is killed, `recover` removes it. ValueError for a store in memory.
        """
        return self.folder.carrying()

    def recover(self) -> int:
        """Remove what killed processes left: files that no row names, unfinished sessions.

        Does nothing while another process is writing: its file comes before its row. Returns how
        many.
        """
        return self.folder.recover()

    def check(self) -> tuple[str, ...]:
        """Read everything that is kept; return what is wrong, each with its session or file.

        Of all namespaces; empty if all is well. It reads every file and hashes every token: a
        second for a gigabyte or two.
        """
        return tuple(problems(self.folder))

    def _lease(self, row: sqlite3.Row) -> Lease:
        return self.folder.lease(row["key"], f"the session {row['name']!r}")

    def _find(self, name: str, columns: str = SESSION) -> sqlite3.Row:
        query = f"SELECT {columns} FROM session WHERE namespace = :namespace AND name = :name"
        row = self.folder.index.row(query, {"namespace": self.namespace, "name": check_kept(name)})
        if row is None:
            raise unknown_session(name, self.namespace)
        return row
