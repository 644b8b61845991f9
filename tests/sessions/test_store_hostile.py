"""A store in which anything may be damaged, or made by somebody who means harm."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from griffin.sessions import Item, SessionBusy, StateTorn, Store
from griffin.sessions.disk_folder import DiskFolder
from griffin.sessions.names import DEEPEST, plain_json
from tests.support.fake_states import begin, disk, fingerprint, holds, say
from tools.fuzz.harness import chance
from tools.fuzz.stores import attempt, make


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    """A store of two sessions: what is done to the one must leave the other whole."""
    with Store(tmp_path / "s") as store:
        for name in ("hurt", "whole"):
            with begin(store, name) as session:
                for ids in ([1, 2, 3], [4, 5], [6]):
                    say(session, ids)
        yield store


def change(store: Store, statement: str, *values: object) -> None:
    """Change the index as nothing of ours would."""
    with closing(sqlite3.connect(disk(store).path / "index.sqlite")) as index, index:
        index.execute("PRAGMA foreign_keys = OFF")
        index.execute(statement, values)


def whole(store: Store) -> bool:
    with store.open("whole", fingerprint()) as session:
        return holds(session, [1, 2, 3, 4, 5, 6]) and "whole" in [i.name for i in store.list()]


@contextmanager
def soon(store: Store, seconds: float = 20.0) -> Iterator[None]:
    """Have sqlite give up what does not end, so that a test fails instead of standing still."""
    timer = threading.Timer(seconds, store.folder.index._connection.interrupt)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_turn_that_is_its_own_ancestor(store, length):
    change(
        store,
        "UPDATE turn SET parent = CASE id WHEN 1 THEN ? ELSE id - 1 END WHERE id <= ?",
        *(length, length),
    )
    with soon(store):
        found = store.check()
        assert any("turn 1: the turn before it is younger" in said for said in found), found
        with pytest.raises(StateTorn), store.open("hurt", fingerprint()) as session:
            session.turns()
        with pytest.raises(StateTorn):
            store.export("hurt", disk(store).path.parent / "e")
        assert whole(store)
        store.delete("hurt")
        assert whole(store) and store.check() == ()


def test_a_damaged_schema_is_told_in_a_line(store):
    """sqlite quotes what it cannot read, line breaks and all."""
    folder = disk(store).path
    store.close()
    path = folder / "index.sqlite"
    path.write_bytes(path.read_bytes().replace(b"TEXT NOT NULL", b"TEXT [OT NULL"))
    with pytest.raises(StateTorn, match=r"index\.sqlite is torn or no index of ours") as error:
        Store(folder)
    assert "\n" not in str(error.value)


def test_the_last_row_number_is_no_full_disk(store):
    change(store, "UPDATE turn SET id = ? WHERE id = 1", (1 << 63) - 1)
    with (
        store.open("whole", fingerprint()) as session,
        pytest.raises(StateTorn, match="its last row number is used"),
    ):
        say(session, [7])


def test_nor_is_that_of_an_item(store):
    store.add_items("whole", [Item("input", {"id": "a"})])
    change(store, "UPDATE item SET id = ?", (1 << 63) - 1)
    with pytest.raises(StateTorn, match="its last row number is used"):
        store.add_items("whole", [Item("input", {"id": "b"})])
    assert whole(store)


WRONG = {
    "turn": {
        "parent": ("x", 1.5, 99),
        "role": (b"user", None),
        "text": (b"\xff",),
        "ids": (b"abc", "abcd", 5, b"\xff" * 8),
        "tokens": ("x", -1, 1e300, b""),
        "chain": ("0" * 31, 5, "g" * 32, b"0" * 32),
        "pending": (b"\1", "x", b"", b"\xff" * 4, bytes(8), bytes(1 << 16)),
        "pos": ("x", -5, 1.5, (1 << 63) - 1),
        "start": ("x", None, -1, 1 << 40),
        "file": ("../index.sqlite", "/etc/passwd", "a/b", "", "..", 5, None),
        "digest": (5, None, "x"),
        "stats": ("[" * 100_000, "[]", "{", 5, b"{}", '{"a":' * 300 + "1" + "}" * 300),
        "created": ("x", float("inf"), -1e300),
        "nbytes": ("x", -1, (1 << 62) + 1, (1 << 63) - 1),
    },
    "session": {
        "key": ("../x", "/etc/passwd", 5, ""),
        "title": (b"\xff",),
        "fingerprint": ("{}", "[1]", "x", 5, "[" * 100_000),
        "config": ("{}", '{"num_layers": 1e999}', "9" * 5000, b"{}"),
        "settings": ("[]", "{", '"x"', "[" * 100_000),
        "head": ("x", 99, -1, 1.5),
        "tip": ("x", -1),
        "used": ("x", float("inf")),
    },
    "member": {"number": ("x", 0, -1, 1 << 40)},
}


@pytest.mark.parametrize(
    ("table", "column"), [(table, column) for table in WRONG for column in WRONG[table]]
)
def test_any_column_of_another_kind(store, table, column):
    """It is named, and refused where it is read; the other session is as it was."""
    where = {"turn": "id = 2", "session": "id = 1", "member": "session = 1 AND turn = 2"}[table]
    kept = store.folder.index.any_rows(f"SELECT {column} FROM {table} WHERE {where}")[0][0]
    for value in WRONG[table][column]:
        try:
            change(store, f"UPDATE {table} SET {column} = ? WHERE {where}", value)
        except sqlite3.IntegrityError:
            continue  # sqlite keeps NOT NULL and UNIQUE by itself
        found = store.check()
        assert any("session 'hurt'" in said for said in found), (value, found)
        assert all(said.isprintable() for said in found)
        with pytest.raises(StateTorn):
            with store.open("hurt", fingerprint()) as session:
                session.tree()
                session.goto(2)
                session.resume()
                session.ids()
            store.show("hurt")
            raise AssertionError(f"{value!r} was taken")
        assert whole(store)
        change(store, f"UPDATE {table} SET {column} = ? WHERE {where}", kept)
    assert store.check() == ()


def test_a_file_outside_the_folder_is_neither_read_nor_removed(store, tmp_path):
    folder = disk(store)
    outside = folder.path / "secret"
    outside.write_bytes((folder.blobs / folder.blobs_there()[0]).read_bytes())
    for name in ("../secret", str(outside), "../../s/secret", ""):
        change(store, "UPDATE turn SET file = ? WHERE id = 3", name)
        for read in (folder.read, folder.read_bytes):
            with pytest.raises(StateTorn, match="which is not in"):
                read(name)
        with pytest.raises(StateTorn), store.open("hurt", fingerprint()) as session:
            session.resume()
    assert store.recover() == 0  # what a damaged index names, nobody knows
    store.delete("hurt")
    assert outside.exists() and whole(store)


def test_a_blob_that_is_a_link_is_not_followed(store, tmp_path):
    with store.open("hurt", fingerprint()) as session:
        (row,) = store.folder.index.rows("SELECT file FROM turn WHERE id = 3")
        path = disk(store).blobs / row["file"]
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(StateTorn, match=row["file"]):
            session.resume()
        with pytest.raises(StateTorn, match="is a link"):
            Store.in_memory().adopt(session, "copy")
    assert any("is a link" in said for said in store.check())


@pytest.mark.parametrize("name", ["file", "session.key"])
def test_what_recovers_removes_nothing_that_a_damaged_index_may_have_named(store, name, caplog):
    before = set(disk(store).blobs_there())
    if name == "file":
        change(store, "UPDATE turn SET file = 'x' WHERE id = 2")
    else:
        change(store, "UPDATE session SET key = 'x' WHERE id = 1")
    with caplog.at_level(logging.WARNING), Store(disk(store).path) as again:
        assert whole(again)
    assert set(disk(store).blobs_there()) == before and "is cleared away" in caplog.text


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE turn",
        "DROP TABLE member",
        "ALTER TABLE turn DROP COLUMN stats",
        "ALTER TABLE session RENAME COLUMN used TO x",
        "DROP INDEX member_turn",
        "CREATE TRIGGER t AFTER UPDATE ON session BEGIN DELETE FROM turn; END",
        "CREATE VIEW v AS SELECT * FROM turn",
    ],
)
def test_tables_that_are_not_ours_are_named(store, statement):
    change(store, statement)
    said = store.check()
    assert any("index.sqlite" in line and "restore it" in line for line in said), said
    with pytest.raises(StateTorn, match=r"lacks (table|column|index)|not ours"):
        Store(disk(store).path)


def test_garbage_in_the_index_is_listed(store):
    path = disk(store).path / "index.sqlite"
    store.folder.index.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    sound = path.read_bytes()
    for damage in (sound[: len(sound) // 2], sound[:5000], b"x" * len(sound)):
        path.write_bytes(damage)
        found = store.check()
        assert found and all(said.isprintable() for said in found), found
    path.write_bytes(sound)


def kinds(path) -> dict[str, Callable[[], object]]:
    return {
        "a folder": path.mkdir,
        "a link": lambda: path.symlink_to("/etc/passwd"),
        "a pipe": lambda: os.mkfifo(path),
    }


@pytest.mark.parametrize("kind", ["a folder", "a link", "a pipe"])
@pytest.mark.parametrize(
    "name", ["index.sqlite", "index.sqlite-wal", "blobs", "locks", "opening.lock"]
)
def test_what_is_no_file_or_folder_of_ours_is_refused(tmp_path, name, kind):
    path = tmp_path / "s" / name
    Store(tmp_path / "s").close()
    if name in ("blobs", "locks"):
        path.rmdir()
        if kind == "a folder":
            return
    path.unlink(missing_ok=True)
    kinds(path)[kind]()
    with pytest.raises(StateTorn, match=f"{name} is {kind}"):
        Store(tmp_path / "s")


@pytest.mark.parametrize("kind", ["a folder", "a link", "a pipe"])
def test_something_else_in_a_folder_keeps_nobody_out(store, kind):
    """A folder in blobs/ or locks/ once kept the server from starting."""
    folder = disk(store)
    for path in (folder.blobs / "x", folder.locks / "x"):
        kinds(path)[kind]()
    found = [said for said in store.check() if f"x is {kind}" in said]
    assert len(found) == 2 and all("move it away" in said for said in found)
    with Store(folder.path) as again:
        assert whole(again)


@pytest.mark.parametrize("kind", ["a folder", "a link", "a pipe"])
def test_a_lock_that_is_no_file_is_named(store, kind):
    (row,) = store.folder.index.rows("SELECT key FROM session WHERE name = 'hurt'")
    path = disk(store).locks / row["key"]
    path.unlink()
    kinds(path)[kind]()
    for ask in (lambda: store.open("hurt", fingerprint()), lambda: store.delete("hurt")):
        with pytest.raises(StateTorn, match=f"{row['key']} is {kind}"):
            ask()
    assert whole(store)


def test_folders_that_are_open_to_others_are_closed_and_that_is_said(store, caplog):
    folder = disk(store)
    for mode in (0o777, 0o755, 0o500):
        for path in (folder.blobs, folder.locks, folder.path / "index.sqlite"):
            path.chmod(mode)
        assert mode == 0o500 or any("chmod 700" in said for said in store.check())
        caplog.clear()
        with caplog.at_level(logging.WARNING), Store(folder.path) as again:
            assert whole(again)
        assert folder.blobs.stat().st_mode & 0o777 == 0o700
        assert (folder.path / "index.sqlite").stat().st_mode & 0o077 == 0
        assert str(folder.blobs) in caplog.text and str(folder.locks) in caplog.text


def test_who_holds_a_session_cannot_write_to_our_terminal(store):
    with store.open("hurt", fingerprint()):
        (row,) = store.folder.index.rows("SELECT key FROM session WHERE name = 'hurt'")
        (disk(store).locks / row["key"]).write_text("\x1b[2J\nme")
        with pytest.raises(SessionBusy) as caught:
            store.open("hurt", fingerprint())
        assert str(caught.value).isprintable()


def test_what_lies_too_deep_is_not_kept_either():
    value: object = 1
    for _ in range(DEEPEST):
        value = [value]
    with pytest.raises(ValueError, match="flatten"):
        plain_json({"a": value}, "the stats")
    assert plain_json({"a": value[0]}, "the stats")  # pyright: ignore[reportIndexIssue]


def test_a_folder_in_memory_has_nothing_strange():
    with Store.in_memory() as store:
        assert not isinstance(store.folder, DiskFolder) and list(store.folder.strange()) == []


@pytest.mark.sweep
@pytest.mark.parametrize("number", range(48))
def test_random_damage(number):
    """A few of what `python -m tools.fuzz stores` tries."""
    attempt(make(chance("stores", 0, number)))
