"""A folder of conversations that outlive the process."""

from __future__ import annotations

import copy
import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from griffin.model import GriffinConfig
from griffin.sessions import history
from griffin.sessions.changes import check_free, insert_session, remove_session
from griffin.sessions.check import problems
from griffin.sessions.disk import private_folder, sync_folder, write_durably
from griffin.sessions.errors import StorageFull, UnknownSession
from griffin.sessions.exchange import export_turn, import_state
from griffin.sessions.fingerprint import Fingerprint, config_digest
from griffin.sessions.index import open_index
from griffin.sessions.lease import Lease, in_use, locked, locked_if_free
from griffin.sessions.names import (
    UNFINISHED,
    check_kept,
    check_name,
    check_namespace,
    check_text,
    new_name,
)
from griffin.sessions.room import HELD, MOST_SESSIONS, OTHERS, OWN, check_quota, session_bytes
from griffin.sessions.session import Session
from griffin.sessions.session_info import INFOS, USAGE, SessionInfo, Usage, info_of
from griffin.sessions.tensor_file import Packed
from griffin.sessions.turn import Turn


class Store:
    """Sessions in a folder of mode 0700, for any number of processes, on a network of several
    machines.

    folder:          made if it is not there. One that others may look into is refused, unless it is
                     empty.
    namespace:       whose sessions: they see and count only their own. "" or the form of a name,
                     such as the digest of an API key.
    quota_bytes:     most bytes of all namespaces together. An owner's own sessions make room for
                     what is new, those unused for longest first.
    max_age_seconds: a session unused for longer is removed by `sweep`.
    network:         the folder may be shared by several machines: the index keeps a rollback
                     journal, which holds where file locks do. A folder that was opened so once
                     stays so, whoever opens it.
    A namespace has at most MOST_SESSIONS sessions; beside a quota, the one unused for longest makes
    place. An open session is never removed. Raises StateTorn for an index that is not ours or not
    whole, ValueError for a folder on a network without `network`, or one without locks that other
    machines see. Files that a killed process left unfinished are removed. A process that forks
    makes a Store of its own in the child.
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
        self.owner: tuple[str, ...] = (namespace,)
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
            self.index = open_index(self.folder, self.blobs, network)
        self.recover()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index, for all namespaces of this store."""
        self.index.close()

    def within(self, namespace: str, beside: Sequence[str] = ()) -> Store:
        """Return this store for another owner. beside: namespaces of the same owner, which make
        room, too."""
        other = copy.copy(self)
        other.namespace = check_namespace(namespace)
        other.owner = (namespace, *map(check_namespace, beside))
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
        """Begin a session and open it. Without a name it gets a random one; see also
        `unfinished_name`.

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
        key, needed = secrets.token_hex(16), session_bytes(title, settings)
        with locked(self.writers, shared=True):  # so that nobody takes the lock file for a lost one
            self._make_room(needed, None)
            lease = Lease(self.locks / key, f"the session {name!r}")
            try:
                with self.index.transaction() as index:
                    check_quota(index, self.quota_bytes, needed)
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

        Raises UnknownSession, SessionBusy if it is open elsewhere, and StateMismatch, which says
        what differs.
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
        where = (
            "WHERE session.namespace = :namespace AND substr(session.name, 1, 1) <> :unfinished "
            "ORDER BY session.used DESC, session.id DESC"
        )
        values = {"namespace": self.namespace, "unfinished": UNFINISHED}
        return tuple(info_of(row) for row in self.index.rows(INFOS + where, values))

    def show(self, name: str) -> SessionInfo:
        """Return what the list says of one session; UnknownSession if there is none of that
        name."""
        row = self.index.row(INFOS + "WHERE session.id = :id", {"id": self._find(name)["id"]})
        if row is None:
            raise UnknownSession(_unknown(name))
        return info_of(row)

    def busy(self, name: str) -> bool:
        """Return whether a session is open, here or in any other process; it stays free if it
        is."""
        return in_use(self.locks / self._find(name)["key"])

    def turns(self, name: str) -> tuple[Turn, ...]:
        """Return all turns of a session, of all branches, in the order they were made; it may be
        open."""
        return tuple(history.tree(self.index, self._find(name)["id"]))

    def usage(self) -> Usage:
        """Return what the store holds, of all namespaces."""
        sessions, turns, nbytes = self.index.rows(USAGE)[0]
        return Usage(sessions=sessions, turns=turns, nbytes=nbytes)

    def rename(self, name: str, to: str) -> None:
        """Give a session another name. SessionBusy if it is open, SessionExists if the name is
        taken."""
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
        """Delete a session: its row, text and tokens are overwritten in the index, its files
        removed.

        Turns it shares with forks stay theirs. Raises SessionBusy if it is open.
        """
        row = self._find(name)
        lease = Lease(self.locks / row["key"], f"the session {name!r}")
        try:
            self._remove(row["id"], row["key"])
        finally:
            lease.release()

    def export(self, name: str, path: str | Path, *, at: int | None = None) -> int:
        """Write a session's head, or its turn `at`, as a state file and return its bytes; it need
        not be free.

        Raises UnknownTurn for a number it does not have, ValueError for a session without turns.
        """
        row = self._find(name)
        fingerprint = Fingerprint.from_dict(json.loads(row["fingerprint"]))
        config = GriffinConfig.from_dict(json.loads(row["config"]))
        turn: Turn | None = None
        if at is not None or row["head"] is not None:
            turn = history.turn(
                self.index, row["id"], number=at, key=row["head"] if at is None else None
            )
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

        fingerprint: the model's; without one the file's own is believed, and checked when the
                     session is opened.
        title:       the file's own if omitted.
        Its turns come along as text; the state is that of the last one, so nothing before it can be
        gone back to. Errors as for `load_state_file` and `create`.
        """
        name = check_name(name) if name is not None else new_name()
        if title is not None:
            check_text(title, "the title")
        import_state(self, path, name, fingerprint, title)
        return self.show(name)

    def sweep(self) -> int:
        """Remove sessions unused for too long and, over the quota, those unused for longest; return
        how many.

        Of all owners. Open sessions stay.
        """
        return self._remove_old() + self._remove_unused("true", lambda: self._over(0))

    @contextmanager
    def writing(
        self, packed: Packed | None, nbytes: int, session: int | None = None
    ) -> Iterator[tuple[sqlite3.Connection, str | None]]:
        """Write a turn's file, then hold the index for the rows that name it: all of it happens, or
        nothing.

        packed:  the file, if there is one.
        nbytes:  what file and rows take; room is made for them.
        session: row of the session they are for, which stays; None for a new one.
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
                if (
                    file
                    and self.index.row("SELECT 1 FROM turn WHERE file = :file", {"file": file})
                    is None
                ):
                    (self.blobs / file).unlink(missing_ok=True)
                raise

    @contextmanager
    def carrying(self) -> Iterator[Path]:
        """Give a place for a state file on its way from one namespace to another; it is gone at the
        end.

        If this process is killed, `recover` removes it.
        """
        path = self.blobs / secrets.token_hex(16)
        with locked(self.writers, shared=True):
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)

    def recover(self) -> int:
        """Remove files that no row names and unfinished sessions, left by processes that were
        killed.

        Does nothing while another process is writing: its file comes before its row. Returns how
        many.
        """
        with locked_if_free(self.writers) as free:
            if not free:
                return 0
            found = self._remove_unused(
                "substr(name, 1, 1) = :unfinished", values={"unfinished": UNFINISHED}
            )
            # Before the rows: who opens a session meanwhile makes a lock file, and that one is not
            # lost.
            blobs, locks = list(self.blobs.iterdir()), list(self.locks.iterdir())
            named = {
                row[0] for row in self.index.rows("SELECT file FROM turn WHERE file IS NOT NULL")
            }
            keys = {row[0] for row in self.index.rows("SELECT key FROM session")}
            lost = [path for path in blobs if path.name not in named]
            lost += [path for path in locks if path.name not in keys]
            # What NFS calls a file that was removed while somebody has it open; it goes with its
            # reader.
            lost = [path for path in lost if not path.name.startswith(".nfs")]
            for path in lost:
                path.unlink(missing_ok=True)
        return found + len(lost)

    def check(self) -> tuple[str, ...]:
        """Read everything that is kept and return what is wrong, each problem with the name of its
        file or session.

        Of all namespaces; empty if all is well. It reads every file and hashes every token: a
        second for a gigabyte or two.
        """
        return tuple(problems(self.index, self.blobs))

    def _make_room(self, nbytes: int, session: int | None) -> None:
        """See that so much more may be kept. session: the one it is for; None for a new one."""
        if self.quota_bytes is not None:
            self._make_bytes(nbytes, self.quota_bytes, session)
        if session is None:
            self._make_place()

    def _make_bytes(self, nbytes: int, quota: int, session: int | None) -> None:
        """Remove sessions of this owner as needed; StorageFull, and none is removed, if it is of no
        use."""
        own = self._sum(OWN, {"session": session})
        if own + nbytes > quota:
            raise StorageFull(
                f"{nbytes:,} bytes more beside the session's {own:,} exceed the quota of "
                f"{quota:,} bytes; raise the quota, or begin a new session"
            )
        self._remove_old()
        if not self._over(nbytes):
            return
        owner = {"owner": json.dumps(self.owner)}
        if self._sum(OTHERS, owner) + own + nbytes > quota:
            raise StorageFull(
                f"the sessions of others leave no room for {nbytes:,} bytes more in the "
                f"{quota:,} that are allowed; whoever runs this can raise the quota"
            )
        mine = "namespace IN (SELECT value FROM json_each(:owner))"
        self._remove_unused(mine, lambda: self._over(nbytes), owner)

    def _make_place(self) -> None:
        """See that the namespace may have one session more; StorageFull if it may not."""
        where, values = "namespace = :namespace", {"namespace": self.namespace}

        def full() -> bool:
            return self._sum(f"SELECT count(*) FROM session WHERE {where}", values) >= MOST_SESSIONS

        if self.quota_bytes is not None:
            self._remove_unused(where, full, values)
        if full():
            raise StorageFull(
                f"there are {MOST_SESSIONS:,} sessions, as many as there may be; delete some"
            )

    def _over(self, more: int) -> bool:
        return self.quota_bytes is not None and self._sum(HELD) + more > self.quota_bytes

    def _sum(self, query: str, values: Mapping[str, Any] | None = None) -> int:
        return self.index.rows(query, values)[0][0]

    def _remove_old(self) -> int:
        if self.max_age_seconds is None:
            return 0
        return self._remove_unused(
            "used < :oldest", values={"oldest": time.time() - self.max_age_seconds}
        )

    def _remove_unused(
        self,
        where: str,
        go_on: Callable[[], bool] = lambda: True,
        values: Mapping[str, Any] | None = None,
    ) -> int:
        """Remove sessions that nobody has open, those unused for longest first; return how many."""
        removed = 0
        if not go_on():
            return 0
        query = f"SELECT id, key, used FROM session WHERE {where} ORDER BY used, id"
        for row in self.index.rows(query, values):
            if not go_on():
                break
            with locked_if_free(self.locks / row["key"]) as free:
                same = self.index.row(
                    "SELECT 1 FROM session WHERE id = :id AND used = :used", dict(row)
                )
                if free and same:  # nobody has it, nor had it since we looked
                    self._remove(row["id"], row["key"])
                    removed += 1
        return removed

    def _remove(self, session: int, key: str) -> None:
        """Remove a session whose lease is held. Rows go first: a crash leaves files that nothing
        names."""
        with self.index.transaction() as index:
            files = remove_session(index, session)
        for file in files:
            (self.blobs / file).unlink(missing_ok=True)
        (self.locks / key).unlink(missing_ok=True)
        sync_folder(self.blobs)
        self.index.forget()

    def _find(self, name: str) -> sqlite3.Row:
        query = "SELECT * FROM session WHERE namespace = :namespace AND name = :name"
        row = self.index.row(query, {"namespace": self.namespace, "name": check_kept(name)})
        if row is None:
            raise UnknownSession(_unknown(name))
        return row


def _unknown(name: str) -> str:
    return f"there is no session {name!r}; the list of sessions shows which there are"
