"""What a store stands on: an index, a blob for each state, a lock for each session."""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from griffin.sessions.errors import StateTorn, StorageFull
from griffin.sessions.fingerprint import Fingerprint
from griffin.sessions.index import Index
from griffin.sessions.lease import Lease
from griffin.sessions.names import UNFINISHED
from griffin.sessions.quota import HELD, LEFT, MOST_SESSIONS, OWN, check_quota
from griffin.sessions.rows import remove_session, remove_turns
from griffin.sessions.tensor_file import PackedFile, TensorFile

log = logging.getLogger("griffin.sessions")


class Folder(ABC):
    """Where sessions lie: on a disk (`DiskFolder`) or in memory (`MemoryFolder`).

    index:   which sessions there are, and their turns.
    durable: what is kept here outlives the process.
    quota_bytes, max_age_seconds: as those of Store.
    Its text says where it is.
    """

    durable: ClassVar[bool]

    def __init__(self, index: Index) -> None:
        self.index = index
        self.quota_bytes: int | None = None
        self.max_age_seconds: float | None = None

    @abstractmethod
    def write(self, name: str, chunks: Sequence[bytes | memoryview]) -> None:
        """Keep a blob, whole or not at all. StorageFull if there is no room."""

    @abstractmethod
    def read(self, name: str) -> TensorFile:
        """Open a blob. StateTorn if it is missing or its header is not what was written."""

    @abstractmethod
    def read_bytes(self, name: str) -> bytes:
        """Return all of a blob, unchecked. StateTorn if it is missing."""

    @abstractmethod
    def discard(self, name: str) -> None:
        """Remove a blob; one that is not there is fine."""

    @abstractmethod
    def flush(self) -> None:
        """See that what was discarded stays so."""

    @abstractmethod
    def blobs_there(self) -> list[str]:
        """Return the names of all blobs, half-written ones too."""

    @abstractmethod
    def carrying(self) -> AbstractContextManager[Path]:
        """Give a place for a state file between two namespaces; it is removed at the end."""

    @abstractmethod
    def lease(self, key: str, what: str) -> Lease:
        """Take a session's lock, or raise SessionBusy, which says who has `what`."""

    @abstractmethod
    def lease_if_free(self, key: str) -> AbstractContextManager[bool]:
        """Take a session's lock for a block if nobody has it now; the value says whether."""

    @abstractmethod
    def leased(self, key: str) -> bool:
        """Return whether somebody has a session's lock."""

    @abstractmethod
    def discard_lock(self, key: str) -> None:
        """Remove a session's lock; one that is not there is fine."""

    @abstractmethod
    def locks_there(self) -> list[str]:
        """Return the keys of all locks."""

    def strange(self) -> Iterator[str]:
        """Yield a sentence for whatever lies there and is none of ours, or open to others."""
        yield from ()

    @abstractmethod
    def writers(self) -> AbstractContextManager[None]:
        """Be one of those who write, for a block: blobs come before the rows that name them."""

    @abstractmethod
    def no_writers(self) -> AbstractContextManager[bool]:
        """Keep writers out for a block if there are none now; the value says whether."""

    @contextmanager
    def writing(
        self,
        files: Sequence[PackedFile],
        nbytes: int,
        owner: Sequence[str],
        session: int | None = None,
    ) -> Iterator[tuple[sqlite3.Connection, list[str]]]:
        """Write turns' files, then hold the index for the rows that name them, all or nothing.

        nbytes:  what files and rows take; room is made for them.
        owner:   the namespace they are for, and others of the same owner, whose sessions make room.
        session: row of the session they are for, which stays; None for a new one.
        The value is the index and the files' names.
        """
        names = [secrets.token_hex(16) for _ in files]
        with self.writers():
            self._make_room(nbytes, owner, session)
            try:
                for name, packed in zip(names, files, strict=True):
                    self.write(name, packed.chunks)
                with self.index.transaction() as index:
                    check_quota(index, self.quota_bytes, nbytes)
                    yield index, names
            except BaseException:
                # An interrupt may come when the row that names it is on the disk already.
                query = "SELECT 1 FROM turn WHERE file = :file"
                for name in names:
                    if self.index.row(query, {"file": name}) is None:
                        self.discard(name)
                raise

    def remove(self, session: int, key: str) -> None:
        """Remove a session whose lock is held, rows first: a crash leaves only unnamed blobs."""
        with self.index.transaction() as index:
            files = remove_session(index, session)
        for file in files:
            self.discard(file)
        self.discard_lock(key)
        self.flush()
        self.index.forget()

    def begin_anew(self, session: int, fingerprint: Fingerprint) -> None:
        """Take all turns from a session whose lock is held, and give it to another model."""
        with self.index.transaction() as index:
            files = remove_turns(index, session)
            mark = json.dumps(fingerprint.to_dict())
            index.execute("UPDATE session SET fingerprint = ? WHERE id = ?", (mark, session))
        for file in files:
            self.discard(file)
        self.flush()
        self.index.forget()

    def sweep(self) -> int:
        """Remove what is too old and, over the quota, longest unused; return how many."""
        return self._remove_old() + self._remove_unused("true", lambda: self._over(0))

    def recover(self) -> int:
        """Remove what killed processes left: blobs that no row names, unfinished sessions.

        Does nothing while another is writing: its blob comes before its row. From a damaged index
        nobody can tell what is named: then nothing is removed, and that is said. Returns how many.
        """
        try:
            return self._recover()
        except StateTorn as error:
            log.warning("nothing in %s is cleared away: %s", self, error)
            return 0

    def _recover(self) -> int:
        with self.no_writers() as alone:
            if not alone:
                return 0
            found = self._remove_unused(
                "substr(name, 1, 1) = :unfinished", values={"unfinished": UNFINISHED}
            )
            # Before the rows: who opens a session meanwhile makes a lock, and that one is not lost.
            blobs, locks = self.blobs_there(), self.locks_there()
            named = {
                row[0] for row in self.index.rows("SELECT file FROM turn WHERE file IS NOT NULL")
            }
            keys = {row[0] for row in self.index.rows("SELECT key FROM session")}
            lost_blobs = [name for name in blobs if name not in named]
            lost_locks = [key for key in locks if key not in keys]
            for name in lost_blobs:
                self.discard(name)
            for key in lost_locks:
                self.discard_lock(key)
        return found + len(lost_blobs) + len(lost_locks)

    def _make_room(self, nbytes: int, owner: Sequence[str], session: int | None) -> None:
        """See that so much more may be kept."""
        if self.quota_bytes is not None:
            self._make_bytes(nbytes, self.quota_bytes, owner, session)
        if session is None:
            self._make_place(owner[0])

    def _make_bytes(
        self, nbytes: int, quota: int, owner: Sequence[str], session: int | None
    ) -> None:
        """Remove sessions of this owner as needed; if that is of no use, none, and StorageFull."""
        own = self._sum(OWN, {"session": session})
        if own + nbytes > quota:
            raise StorageFull(
                f"{nbytes:,} bytes more beside the session's {own:,} exceed the quota of "
                f"{quota:,} bytes; raise the quota, or begin a new session"
            )
        self._remove_old()
        if not self._over(nbytes):
            return
        mine = {"owner": json.dumps(list(owner))}
        if self._sum(LEFT, {**mine, "session": session}) + nbytes > quota:
            raise StorageFull(
                f"the sessions of others leave no room for {nbytes:,} bytes more in the "
                f"{quota:,} that are allowed; whoever runs this can raise the quota"
            )
        where = "namespace IN (SELECT value FROM json_each(:owner))"
        self._remove_unused(where, lambda: self._over(nbytes), mine)

    def _make_place(self, namespace: str) -> None:
        """See that the namespace may have one session more; StorageFull if it may not."""
        where, values = "namespace = :namespace", {"namespace": namespace}

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
        """Remove sessions that nobody has open, longest unused first; return how many."""
        removed = 0
        if not go_on():
            return 0
        query = f"SELECT id, key, used FROM session WHERE {where} ORDER BY used, id"
        for row in self.index.sound_rows(query, values):
            if not go_on():
                break
            with self.lease_if_free(row["key"]) as free:
                same = self.index.row(
                    "SELECT 1 FROM session WHERE id = :id AND used = :used", dict(row)
                )
                if free and same:  # nobody has it, nor had it since we looked
                    self.remove(row["id"], row["key"])
                    removed += 1
        return removed
