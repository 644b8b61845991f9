"""A folder of conversations that outlive the process."""

from __future__ import annotations

import copy
import json
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from griffin.model import GriffinConfig
from griffin.sessions import history
from griffin.sessions.changes import check_free, check_quota, insert_session, remove_session
from griffin.sessions.check import problems
from griffin.sessions.disk import private_folder, sync_folder, write_durably
from griffin.sessions.errors import StateTorn, StorageFull, UnknownSession
from griffin.sessions.exchange import export_turn, import_state
from griffin.sessions.fingerprint import Fingerprint, config_digest
from griffin.sessions.index import Index
from griffin.sessions.lease import Lease, in_use, locked, locked_if_free
from griffin.sessions.mount import Journal, check_place, mount_of
from griffin.sessions.names import check_name, check_namespace, check_text, new_name
from griffin.sessions.session import Session
from griffin.sessions.session_info import INFOS, USAGE, SessionInfo, Usage, info_of
from griffin.sessions.tensor_file import Packed
from griffin.sessions.turn import Turn


class Store:
    """Sessions in a folder of mode 0700, for any number of processes, on a network of several machines.

    folder:          made if it is not there. One that others may look into is refused, unless it is empty.
    namespace:       whose sessions: they see and count only their own. "" or the form of a name, such as the
                     digest of an API key.
    quota_bytes:     most bytes of all namespaces together; the sessions unused for longest make room for a
                     turn.
    max_age_seconds: a session unused for longer is removed by `sweep`.
    network:         the folder may be shared by several machines: the index keeps a rollback journal, which
                     holds where file locks do. A folder that was opened so once stays so, whoever opens it.
    An open session is never removed. Raises StateTorn for an index that is not ours or not whole, ValueError
    for a folder on a network without `network`, or one without locks that other machines see. Files that a
    killed process left unfinished are removed. A process that forks makes a Store of its own in the child.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        namespace: str = "",
        quota_bytes: int | None = None,
        max_age_seconds: float | None = None,
        network: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.namespace = check_namespace(namespace)
        self.quota_bytes = quota_bytes
        self.max_age_seconds = max_age_seconds
        for name, limit in (("quota_bytes", quota_bytes), ("max_age_seconds", max_age_seconds)):
            if limit is not None and limit <= 0:
                raise ValueError(f"{name} must be positive, or None for no limit, not {limit!r}")
        private_folder(self.folder)
        self.blobs, self.locks = self.folder / "blobs", self.folder / "locks"
        for inner in (self.blobs, self.locks):
            inner.mkdir(mode=0o700, exist_ok=True)
        self.writers = self.folder / "writers.lock"
        with locked(self.folder / "opening.lock"):
            path = self.folder / "index.sqlite"
            if (not path.exists() or not path.stat().st_size) and any(self.blobs.iterdir()):
                raise StateTorn(f"{path} is missing, and {self.blobs} holds states; restore it from a copy")
            self.index = Index(path, self._journal(network))
        self.recover()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index, for all namespaces of this store."""
        self.index.close()

    def within(self, namespace: str) -> Store:
        """Return this store for another owner."""
        other = copy.copy(self)
        other.namespace = check_namespace(namespace)
        return other

    def create(
        self,
        name: str | None = None,
        *,
        fingerprint: Fingerprint,
        config: GriffinConfig,
        title: str = "",
        settings: Mapping[str, Any] | None = None,
    ) -> Session:
        """Begin a session and open it. Without a name it gets a random one.

        fingerprint: of the model; its `config` is the digest of `config`.
        settings:    plain values to keep beside it.
        Raises InvalidName, SessionExists, and ValueError for a fingerprint of another config.
        """
        name = check_name(name) if name is not None else new_name()
        check_text(title, "the title")
        if fingerprint.config != config_digest(config):
            raise ValueError("the fingerprint's config is not the digest of the config given with it")
        key = secrets.token_hex(16)
        with locked(self.writers, shared=True):  # so that nobody takes the lock file for a lost one
            lease = Lease(self.locks / key, f"the session {name!r}")
            try:
                with self.index.transaction() as index:
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
                return Session(self, row, lease)
            except BaseException:
                (self.locks / key).unlink(missing_ok=True)
                lease.release()
                raise

    def open(self, name: str, fingerprint: Fingerprint) -> Session:
        """Open a session for the model of this fingerprint.

        Raises UnknownSession, SessionBusy if it is open elsewhere, and StateMismatch, which says what
        differs.
        """
        row = self._find(name)
        lease = Lease(self.locks / row["key"], f"the session {name!r}")
        try:
            session = Session(self, row["id"], lease)
            session.fingerprint.require(fingerprint, f"the session {name!r}")
        except BaseException:
            lease.release()
            raise
        return session

    def list(self) -> tuple[SessionInfo, ...]:
        """Return the namespace's sessions, those used last first."""
        where = "WHERE session.namespace = :namespace ORDER BY session.used DESC, session.id DESC"
        return tuple(info_of(row) for row in self.index.rows(INFOS + where, {"namespace": self.namespace}))

    def show(self, name: str) -> SessionInfo:
        """Return what the list says of one session; UnknownSession if there is none of that name."""
        row = self.index.row(INFOS + "WHERE session.id = :id", {"id": self._find(name)["id"]})
        if row is None:
            raise UnknownSession(_unknown(name))
        return info_of(row)

    def busy(self, name: str) -> bool:
        """Return whether a session is open, here or in any other process; it stays free if it is."""
        return in_use(self.locks / self._find(name)["key"])

    def turns(self, name: str) -> tuple[Turn, ...]:
        """Return all turns of a session, of all branches, in the order they were made; it may be open."""
        return tuple(history.tree(self.index, self._find(name)["id"]))

    def usage(self) -> Usage:
        """Return what the store holds, of all namespaces."""
        sessions, turns, nbytes = self.index.rows(USAGE)[0]
        return Usage(sessions=sessions, turns=turns, nbytes=nbytes)

    def rename(self, name: str, to: str) -> None:
        """Give a session another name. SessionBusy if it is open, SessionExists if the name is taken."""
        check_name(to)
        row = self._find(name)
        lease = Lease(self.locks / row["key"], f"the session {name!r}")
        try:
            with self.index.transaction() as index:
                check_free(index, self.namespace, to)
                done = index.execute("UPDATE session SET name = ? WHERE id = ?", (to, row["id"]))
                if not done.rowcount:
                    raise UnknownSession(_unknown(name))
        finally:
            lease.release()

    def delete(self, name: str) -> None:
        """Delete a session: its row, text and tokens are overwritten in the index, its files removed.

        Turns it shares with forks stay theirs. Raises SessionBusy if it is open.
        """
        row = self._find(name)
        lease = Lease(self.locks / row["key"], f"the session {name!r}")
        try:
            self._remove(row["id"], row["key"])
        finally:
            lease.release()

    def export(self, name: str, path: str | Path, *, at: int | None = None) -> int:
        """Write a session's head, or its turn `at`, as a state file and return its bytes; it need not be
        free.

        Raises UnknownTurn for a number it does not have, ValueError for a session without turns.
        """
        row = self._find(name)
        fingerprint = Fingerprint.from_dict(json.loads(row["fingerprint"]))
        config = GriffinConfig.from_dict(json.loads(row["config"]))
        turn: Turn | None = None
        if at is not None or row["head"] is not None:
            turn = history.turn(self.index, row["id"], number=at, key=row["head"] if at is None else None)
        return export_turn(self, row["id"], turn, fingerprint, config, row["title"], path)

    def import_(
        self,
        path: str | Path,
        name: str | None = None,
        *,
        fingerprint: Fingerprint | None = None,
        title: str | None = None,
    ) -> SessionInfo:
        """Begin a session from a state file, after checking all of it.

        fingerprint: the model's; without one the file's own is believed, and checked when the session is
                     opened.
        title:       the file's own if omitted.
        Its turns come along as text; the state is that of the last one, so nothing before it can be gone back
        to. Errors as for `load_state_file` and `create`.
        """
        name = check_name(name) if name is not None else new_name()
        if title is not None:
            check_text(title, "the title")
        import_state(self, path, name, fingerprint, title)
        return self.show(name)

    def sweep(self) -> int:
        """Remove sessions unused for too long and, over the quota, those unused for longest; return how many.

        Open sessions stay.
        """
        return self._sweep(0)

    @contextmanager
    def writing(
        self, packed: Packed | None, nbytes: int, session: int | None = None
    ) -> Iterator[tuple[sqlite3.Connection, str | None]]:
        """Write a turn's file, then hold the index for the rows that name it: all of it happens, or nothing.

        packed:  the file, if there is one.
        nbytes:  what file and rows take; room is made for them.
        session: row of the session they are for, which stays.
        The value is the index and the file's name. For this room's own use.
        """
        file = secrets.token_hex(16) if packed else None
        with locked(self.writers, shared=True):
            self._make_room(nbytes, session)
            try:
                if packed and file:
                    write_durably(self.blobs / file, packed.chunks)
                with self.index.transaction() as index:
                    check_quota(index, self.quota_bytes, nbytes)
                    yield index, file
            except BaseException:
                # An interrupt may come when the row that names it is on the disk already.
                if file and self.index.row("SELECT 1 FROM turn WHERE file = :file", {"file": file}) is None:
                    (self.blobs / file).unlink(missing_ok=True)
                raise

    def recover(self) -> int:
        """Remove files that no row names, left by processes that were killed; return how many.

        Does nothing while another process is writing: its file comes before its row.
        """
        with locked_if_free(self.writers) as free:
            if not free:
                return 0
            named = {row[0] for row in self.index.rows("SELECT file FROM turn WHERE file IS NOT NULL")}
            keys = {row[0] for row in self.index.rows("SELECT key FROM session")}
            lost = [path for path in self.blobs.iterdir() if path.name not in named]
            lost += [path for path in self.locks.iterdir() if path.name not in keys]
            # What NFS calls a file that was removed while somebody has it open; it goes with its reader.
            lost = [path for path in lost if not path.name.startswith(".nfs")]
            for path in lost:
                path.unlink(missing_ok=True)
        return len(lost)

    def check(self) -> tuple[str, ...]:
        """Read everything that is kept and return what is wrong, each problem with the name of its file or
        session.

        Of all namespaces; empty if all is well. It reads every file and hashes every token: a second for a
        gigabyte or two.
        """
        return tuple(problems(self.index, self.blobs))

    def _journal(self, network: bool) -> Journal:
        """Return the journal that this folder's index is kept with; ValueError if none would hold here."""
        note = self.folder / "network"  # whoever opens the folder later keeps to what it says
        journal: Journal = "DELETE" if network or note.exists() else "WAL"
        check_place(self.folder, journal, mount_of(self.folder))
        if journal == "DELETE" and not note.exists():
            write_durably(
                note, [b"Several machines may share this folder: its index keeps a rollback journal.\n"]
            )
        return journal

    def _make_room(self, nbytes: int, session: int | None) -> None:
        if self.quota_bytes is None:
            return
        query = (
            "SELECT coalesce(sum(nbytes), 0) FROM member JOIN turn ON turn.id = member.turn "
            "WHERE member.session = :session"
        )
        own = self.index.rows(query, {"session": session})[0][0]
        if own + nbytes > self.quota_bytes:
            raise StorageFull(
                f"{nbytes:,} bytes more beside the session's {own:,} exceed the quota of "
                f"{self.quota_bytes:,} bytes; raise the quota, or begin a new session"
            )
        self._sweep(nbytes)

    def _sweep(self, needed: int) -> int:
        removed = 0
        oldest = None if self.max_age_seconds is None else time.time() - self.max_age_seconds
        for row in self.index.rows("SELECT id, key, used FROM session ORDER BY used, id"):
            old = oldest is not None and row["used"] < oldest
            over = self.quota_bytes is not None and self.usage().nbytes + needed > self.quota_bytes
            if not old and not over:
                break
            with locked_if_free(self.locks / row["key"]) as free:
                same = self.index.row("SELECT 1 FROM session WHERE id = :id AND used = :used", dict(row))
                if free and same:  # nobody has it, nor had it since we looked
                    self._remove(row["id"], row["key"])
                    removed += 1
        return removed

    def _remove(self, session: int, key: str) -> None:
        """Remove a session whose lease is held. Rows go first: a crash leaves files that nothing names."""
        with self.index.transaction() as index:
            files = remove_session(index, session)
        for file in files:
            (self.blobs / file).unlink(missing_ok=True)
        (self.locks / key).unlink(missing_ok=True)
        sync_folder(self.blobs)
        self.index.forget()

    def _find(self, name: str) -> sqlite3.Row:
        query = "SELECT * FROM session WHERE namespace = :namespace AND name = :name"
        row = self.index.row(query, {"namespace": self.namespace, "name": check_name(name)})
        if row is None:
            raise UnknownSession(_unknown(name))
        return row


def _unknown(name: str) -> str:
    return f"there is no session {name!r}; the list of sessions shows which there are"
