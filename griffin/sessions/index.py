"""The index: one sqlite file of sessions, their turns, and where those led.

Everything is true or false with one transaction; files are written before the row that names them
and removed after it is gone. So a killed process leaves at worst files that no row names.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

from griffin.sessions.errors import SessionBusy, StateTorn, StorageFull
from griffin.sessions.schema import (
    SCHEMA_VERSION,
    bring_up,
    make_tables,
    schema_of,
    tables_of,
)
from griffin.sessions.stored import refused, wrong

Journal = Literal["WAL", "DELETE", "MEMORY"]

_APPLICATION = 0x67726966  # "grif": what `file` and others see in the header
_PATIENCE = 10.0  # seconds to wait for another process's transaction; ours take milliseconds

# How much sqlite flushes so that a commit is on the disk when it returns. EXTRA flushes the folder
# too, once the rollback journal is gone from it: that is what makes such a commit.
_SYNCHRONOUS: dict[Journal, str] = {"WAL": "FULL", "DELETE": "EXTRA", "MEMORY": "OFF"}

# What sqlite says of a file that is damaged: in its pages, its tables, or what they hold.
_TORN = (
    *("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "SQLITE_SCHEMA", "SQLITE_FORMAT"),
    *("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG", "SQLITE_RANGE"),
)
# What sqlite calls a disk, or a network, that does not do what it is asked.
_TROUBLE = ("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_PROTOCOL")

# By name, so that a column that is gone is sqlite's to complain of.
_TURN = ", ".join(
    f"turn.{column}"
    for column in (
        *("id", "parent", "role", "text", "ids", "tokens", "chain", "pending", "pos", "start"),
        *("file", "digest", "nbytes", "stats", "created"),
    )
)
SESSION = ", ".join(
    f"session.{column}"
    for column in (
        *("id", "key", "namespace", "name", "title", "parent", "fingerprint", "config"),
        *("settings", "head", "tip", "created", "used"),
    )
)
# Turns of a session as `turn_of` reads them; more conditions may follow.
TURNS = f"""
SELECT {_TURN}, member.number, above.number AS parent_number
FROM member JOIN turn ON turn.id = member.turn
LEFT JOIN member AS above ON above.session = member.session AND above.turn = turn.parent
WHERE member.session = :session
"""

# A turn and those before it, newest first. A turn's row is younger than its parent's, or the index
# is damaged: then the way ends there, instead of going round for ever.
_LINE = """
WITH RECURSIVE line (id, parent, start, pos) AS (
    SELECT id, parent, start, pos FROM turn WHERE id = :turn
    UNION ALL
    SELECT turn.id, turn.parent, turn.start, turn.pos
    FROM turn JOIN line ON turn.id = line.parent AND turn.id < line.id {condition}
)
"""
# The whole way to a turn, oldest first.
_ON_LINE = TURNS + " AND turn.id IN (SELECT id FROM line) ORDER BY turn.id"
LINE = _LINE.format(condition="") + _ON_LINE
# Whether a turn lies on it.
ON_WAY = _LINE.format(condition="") + "SELECT 1 FROM line WHERE id = :on"
# What a fork takes along.
COPY_LINE = (
    "INSERT INTO member (session, turn, number) "
    + _LINE.format(condition="")
    + "SELECT :target, turn, number FROM member WHERE session = :session "
    "AND turn IN (SELECT id FROM line)"
)
# The end of that way, from the last turn whose state is kept.
UNREAD = _LINE.format(condition="WHERE line.pos IS NULL") + _ON_LINE
# The files a state needs: back to the one whose keys and values begin at position :first or before
# it. Ids are left where they are: those of a long turn are megabytes.
FILES = (
    _LINE.format(condition="WHERE line.start > :first")
    + "SELECT turn.id, turn.parent, turn.pending, turn.pos, turn.start, turn.file, turn.digest, "
    "turn.chain FROM turn JOIN line ON turn.id = line.id ORDER BY turn.id DESC"
)


class Index:
    """A connection to the sqlite file, for one process and any of its threads."""

    def __init__(self, path: Path, journal: Journal = "WAL") -> None:
        """Open the file, or make it. StateTorn for one that is no index, or of a later version.

        journal: "WAL" for a local disk, "DELETE" (a rollback journal) for one that several machines
                 share, "MEMORY" for an index in memory. A file that has another one is changed
                 over; SessionBusy if somebody else has it open.
        """
        self.path = path
        self.journal: Journal = journal
        self._lock = threading.RLock()
        with self._translated():
            self._connection = sqlite3.connect(
                path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
        try:
            with self._translated():
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        run = self._connection.execute
        self._connection.row_factory = sqlite3.Row
        self._connection.text_factory = _text
        run("PRAGMA trusted_schema = OFF")
        run("PRAGMA cell_size_check = ON")
        # Looked at before anything is changed: it may be somebody else's.
        version = run("PRAGMA user_version").fetchone()[0]
        fresh = version == 0 and not run("SELECT count(*) FROM sqlite_master").fetchone()[0]
        ours = (
            1 <= version <= SCHEMA_VERSION
            and run("PRAGMA application_id").fetchone()[0] == _APPLICATION
        )
        if not fresh and not ours:
            raise StateTorn(
                f"{self.path} is an index of version {version}, this griffin keeps version"
                f" {SCHEMA_VERSION}; use the griffin that wrote it, or another folder"
            )
        if not fresh:
            self.check_schema(version)
        self._choose_journal()
        run(f"PRAGMA synchronous = {_SYNCHRONOUS[self.journal]}")
        run("PRAGMA foreign_keys = ON")
        run("PRAGMA secure_delete = ON")  # what is deleted is overwritten, not only forgotten
        if fresh:
            with self.transaction():
                make_tables(self._connection)
                run(f"PRAGMA application_id = {_APPLICATION}")
        elif version < SCHEMA_VERSION:
            with self.transaction():
                bring_up(self._connection)

    def _choose_journal(self) -> None:
        """Have the file use this index's journal. One that is used already costs nothing."""
        mode = ""
        try:
            mode = self._connection.execute(f"PRAGMA journal_mode = {self.journal}").fetchone()[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY":
                raise
        if mode.upper() != self.journal:
            raise SessionBusy(
                f"{self.path} is open elsewhere, and its journal is not the one wanted"
                f" ({self.journal}); end what uses it, then open it again"
            )

    def close(self) -> None:
        self._connection.close()

    @classmethod
    def in_memory(cls) -> Index:
        """Make an index that lives as long as this object."""
        return cls(Path(":memory:"), "MEMORY")

    @contextmanager
    def anew(self) -> Iterator[Index]:
        """Give another connection for a block, which knows nothing but what lies on the disk."""
        if self.journal == "MEMORY":
            yield self
            return
        with closing(Index(self.path, self.journal)) as other:
            yield other

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the index for a block of changes: all of them happen, or none."""
        with self._lock, self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, query: str, values: Mapping[str, Any] | None = None) -> list[sqlite3.Row]:
        """Return what a query finds, all of it as of one moment; StateTorn for a damaged row."""
        found = self.any_rows(query, values)
        for row in found:
            if said := wrong(row):
                raise refused(row, self.path, said)
        return found

    def sound_rows(self, query: str, values: Mapping[str, Any] | None = None) -> list[sqlite3.Row]:
        """Return what a query finds, without damaged rows: for what concerns many sessions."""
        return [row for row in self.any_rows(query, values) if not wrong(row)]

    def any_rows(self, query: str, values: Mapping[str, Any] | None = None) -> list[sqlite3.Row]:
        """Return what a query finds, damaged or not: for who looks for damage."""
        with self._lock, self._translated():
            return self._connection.execute(query, values or {}).fetchall()

    def row(self, query: str, values: Mapping[str, Any] | None = None) -> sqlite3.Row | None:
        """Return the first row of what a query finds; StateTorn if one is damaged."""
        found = self.rows(query, values)
        return found[0] if found else None

    def check_schema(self, version: int) -> None:
        """Raise StateTorn unless the file has the tables of a version of ours, and nothing that
        acts by itself."""
        with self._lock, self._translated():
            found = schema_of(self._connection)
        if unlike := sorted(found ^ tables_of(version)):
            lacks = ", ".join(" ".join(part) for part in unlike if part not in found)
            more = ", ".join(" ".join(part) for part in unlike if part in found)
            said = [f"lacks {lacks}" if lacks else "", f"has {more}, not ours" if more else ""]
            raise StateTorn(
                f"{self.path} {' and '.join(filter(None, said))[:400]}; restore it from a copy, or"
                " use another folder"
            )

    def forget(self) -> None:
        """Empty the journal, which still holds what was deleted, unless others are reading it.

        A rollback journal is removed by each commit.
        """
        if self.journal == "WAL":
            self.rows("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn sqlite's errors into this room's."""
        try:
            yield
        except UnicodeDecodeError as error:  # in the very words with which sqlite complains
            raise self._torn(error) from error
        except sqlite3.DatabaseError as error:
            name = getattr(error, "sqlite_errorname", "") or ""
            if name == "SQLITE_FULL" and self._used_up():
                raise self._torn("its last row number is used") from error
            if name in (
                "SQLITE_FULL",
                "SQLITE_IOERR_WRITE",
                "SQLITE_IOERR_FSYNC",
                "SQLITE_IOERR_SHMSIZE",
            ):
                raise StorageFull(
                    f"no room to write {self.path} ({error}); nothing kept before is lost. "
                    "Free some space and try again"
                ) from error
            if name.startswith("SQLITE_BUSY"):
                raise SessionBusy(
                    f"{self.path} has been in use by another process for {_PATIENCE:.0f} s; try"
                    " again"
                ) from error
            if name.startswith(_TORN):
                raise self._torn(error) from error
            if name.startswith(_TROUBLE):
                raise OSError(f"{self.path} cannot be read or written: {error}") from error
            raise

    def _used_up(self) -> bool:
        """Return whether a table has the largest row number: sqlite calls that full too."""
        run, last = self._connection.execute, (1 << 63) - 1
        tables = run("SELECT name FROM sqlite_master WHERE name IN ('turn', 'session', 'item')")
        return any(
            run(f"SELECT 1 FROM {name} WHERE id = ?", (last,)).fetchall()
            for (name,) in tables.fetchall()
        )

    def _torn(self, error: Exception | str) -> StateTorn:
        said = " ".join(str(error).split())[:300]  # sqlite quotes a damaged schema, line by line
        return StateTorn(
            f"{self.path} is torn or no index of ours ({said}); restore it from a copy, or"
            " move it away and import exported states"
        )


def _text(raw: bytes) -> str | bytes:
    """Return a text; bytes that are none stay bytes, which no column of texts may hold."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
