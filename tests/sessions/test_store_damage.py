"""The folder: what is torn, lost, left over or not ours."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from griffin.sessions import (
    InvalidName,
    SessionBusy,
    SessionExists,
    StateTorn,
    Store,
    unfinished_name,
)
from griffin.sessions.lease import locked
from tests.support.fake_states import begin, disk, fake_state, fingerprint, holds, say


def test_an_index_that_is_not_ours_is_named_and_left_alone(tmp_path):
    def refused(match: str) -> None:
        kept = path.read_bytes()
        with pytest.raises(StateTorn, match=match):
            Store(tmp_path)
        assert path.read_bytes() == kept

    path = tmp_path / "index.sqlite"
    path.write_bytes(b"no database at all, but some text" * 40)
    refused("index.sqlite is torn or no index")
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE recipe (name TEXT)")
    other.close()
    refused("an index of version 0")
    path.unlink()
    Store(tmp_path).close()
    with sqlite3.connect(path) as later:
        later.execute("PRAGMA user_version = 3")
    later.close()
    refused("version 3, this griffin keeps version 2")


def test_a_lost_index_does_not_cost_the_states(tmp_path):
    with Store(tmp_path / "s") as store, begin(store, "a") as session:
        say(session, [1, 2])
        kept = (disk(store).path / "index.sqlite").read_bytes()
    path = tmp_path / "s" / "index.sqlite"
    for loss in (path.unlink, lambda: path.write_bytes(b"")):
        loss()
        with pytest.raises(StateTorn, match=r"is missing, and .* holds states"):
            Store(tmp_path / "s")
        assert len(list((tmp_path / "s" / "blobs").iterdir())) == 1
    path.write_bytes(kept)


def test_torn_and_missing_files_are_named_refused_and_found(tmp_path):
    with Store(tmp_path / "s") as store, begin(store, "a") as session:
        names = []
        for ids in ([1, 2, 3], [4, 5], list(range(20)), [6]):
            before = set(disk(store).blobs.iterdir())
            say(session, ids)
            names.append((set(disk(store).blobs.iterdir()) - before).pop())
        tokens = [1, 2, 3, 4, 5, *range(20), 6]
        assert holds(session, tokens) and store.check() == ()
        for number, path in enumerate(names, start=1):
            whole = path.read_bytes()
            other = names[number % len(names)].read_bytes()
            for damage in (
                None,
                whole[:-1],
                whole[:7],
                b"",
                whole + b"\0",
                whole[:-9] + b"x" + whole[-8:],
                other,
            ):
                path.unlink() if damage is None else path.write_bytes(damage)
                session.goto(number)
                with pytest.raises(StateTorn, match=path.name) as error:
                    session.resume()
                assert (error.value.status, error.value.code) == (409, "state_torn")
                (problem,) = store.check()
                assert f"turn {number}" in problem and path.name in problem
            path.write_bytes(whole)
        session.goto(4)
        assert holds(session, tokens)


def test_check_finds_what_is_wrong_in_the_index(store):
    with begin(store, "a") as session:
        say(session, [1, 2, 3])
        say(session, [4])
    (disk(store).blobs / "stray").touch()
    with store.folder.index.transaction() as index:
        index.execute("UPDATE turn SET ids = ? WHERE id = 1", (bytes(12),))
        index.execute("UPDATE turn SET tokens = 9, pos = 8, start = 1 WHERE id = 2")
    found = store.check()
    assert len(found) == 5, found
    for words in (
        "turn 1: its tokens",
        "turn 2: it has 1 ids, and 6",
        "begins at position 1",
        "stray",
    ):
        assert any(words in problem for problem in found), (words, found)


def test_recover_removes_what_nobody_names(store):
    with begin(store, "a") as session:
        say(session, [1, 2])
        for path in (
            disk(store).blobs / "left",
            disk(store).blobs / ".left.part",
            disk(store).locks / "left",
        ):
            path.touch()
        assert store.recover() == 3 and store.recover() == 0
        assert holds(session, [1, 2])
        with pytest.raises(SessionBusy):
            store.open("a", fingerprint())  # the lock file of an open session is not among them


def test_recover_leaves_the_lock_of_a_session_that_was_made_meanwhile(store, monkeypatch):
    begin(store, "a").close()
    rows = store.folder.index.rows

    def late(query, values=None):
        found = rows(query, values)
        if query == "SELECT key FROM session":  # now another process forks, and opens what it made
            (disk(store).locks / "made-since").touch()
        return found

    monkeypatch.setattr(store.folder.index, "rows", late)
    assert store.recover() == 0 and (disk(store).locks / "made-since").exists()


def test_a_fork_waits_for_who_recovers(store):
    with begin(store, "a") as session:
        with locked(disk(store).path / "writers.lock"):
            thread = threading.Thread(target=session.fork, args=("b",))
            thread.start()
            thread.join(0.05)
            assert [info.name for info in store.list()] == ["a"]
        thread.join(60)
        assert {info.name for info in store.list()} == {"a", "b"}


def test_what_is_unfinished_is_in_no_list_and_goes_with_who_made_it(store):
    with begin(store, unfinished_name()) as session:
        say(session, [1, 2])
        assert store.list() == () and store.recover() == 0
        session.update(name="a", title="whole")
    assert [(info.name, info.title) for info in store.list()] == [("a", "whole")]
    left = unfinished_name()
    begin(store, left).close()  # as when its process was killed
    with begin(store, unfinished_name()) as session:
        with pytest.raises(SessionExists):
            session.update(name="a")
        with pytest.raises(InvalidName):
            session.update(name=left)
        assert store.recover() == 1 and store.usage().sessions == 2
    with Store(disk(store).path) as again:
        assert again.usage().sessions == 1 and len(list(disk(again).locks.iterdir())) == 1
        with again.open("a", fingerprint()) as session:
            assert holds(session, [1, 2])


def test_what_is_carried_is_left_alone_and_not_left_behind(store):
    with begin(store, "a") as session:
        say(session, [1, 2])
    with store.carrying() as path:
        store.export("a", path)
        assert Store(disk(store).path).recover() == 0
        store.within("other").import_(path, "b", fingerprint=fingerprint())
    assert not path.exists() and path.parent == disk(store).blobs  # where `recover` looks
    assert len(list(disk(store).blobs.iterdir())) == 2


def test_a_file_of_the_same_tokens_and_other_numbers_is_told_apart(store):
    """Two sessions that read the same through models that differ: no file stands in for the
    other."""
    files = []
    for name, factor in (("a", 1), ("b", 2)):
        with begin(store, name) as session:
            before = set(disk(store).blobs.iterdir())
            state = fake_state([1, 2]).map(
                lambda t, factor=factor: t * factor if t.dim() > 1 else t
            )
            session.commit(role="user", ids=[1, 2, 3], state=state, pending=[3])
            files.append((set(disk(store).blobs.iterdir()) - before).pop())
    files[0].write_bytes(files[1].read_bytes())
    with (
        store.open("a", fingerprint()) as session,
        pytest.raises(StateTorn, match="not the file that was"),
    ):
        session.resume()


def test_an_index_that_means_other_tokens_is_told_apart(store):
    with begin(store, "a") as session:
        say(session, [1, 2])
    with store.folder.index.transaction() as index:
        index.execute("UPDATE turn SET chain = ?", ("0" * 32,))
    with (
        store.open("a", fingerprint()) as session,
        pytest.raises(StateTorn, match="not the file that was"),
    ):
        session.resume()


def test_an_index_that_lost_a_turn_is_told_apart(store):
    with begin(store, "a") as session:
        for ids in ([1, 2], [3, 4], [5, 6]):
            say(session, ids)
        with store.folder.index.transaction() as index:
            index.execute("UPDATE turn SET parent = 1 WHERE id = 3")
        with pytest.raises(StateTorn, match="lacks turns"):
            session.resume()
        assert any("turn 3" in problem for problem in store.check())
