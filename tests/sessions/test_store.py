"""The folder: names, owners, leases, limits, and what is not ours."""

from __future__ import annotations

import os
import sqlite3
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin.sessions import (
    InvalidName,
    SessionBusy,
    SessionError,
    SessionExists,
    StateMismatch,
    StateTorn,
    StorageFull,
    Store,
    UnknownSession,
    UnknownTurn,
    unfinished_name,
)
from griffin.sessions.lease import locked
from griffin.sessions.names import check_name
from tests.sessions.fakes import CONFIG, CONFIGS, fake_state, fingerprint, holds, say


def begin(store: Store, name: str | None = None, **more):
    return store.create(name, fingerprint=fingerprint(), config=CONFIG, **more)


def age(store: Store, name: str, seconds: float) -> None:
    """Let a session look unused for so long."""
    with store.index.transaction() as index:
        index.execute("UPDATE session SET used = ? WHERE name = ?", (time.time() - seconds, name))


def everything_in(store: Store) -> bytes:
    return b"".join(path.read_bytes() for path in store.folder.rglob("*") if path.is_file())


def test_names(store):
    for name in ("a", "A", "0", "Kitchen-2.0_b", "x" * 128):
        begin(store, name).close()
    assert {info.name for info in store.list()} == {"a", "A", "0", "Kitchen-2.0_b", "x" * 128}
    for name in ("", ".", "..", "../a", "a/b", "a\\b", "-a", "_a", "a b", "a\n", "ä", "x" * 129, "a\0", None):
        for use in (lambda n: store.open(n, fingerprint()), store.show, store.delete, store.turns):
            with pytest.raises(InvalidName, match="1 to 128"):
                use(name)
        if name is not None:
            with pytest.raises(InvalidName):
                begin(store, name)
    with pytest.raises(InvalidName):
        store.within("a/b")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=140))
def test_any_text_is_a_name_of_the_allowed_form_or_refused(text):
    plain = text.isascii() and text.replace(".", "").replace("_", "").replace("-", "").isalnum()
    fine = 0 < len(text) <= 128 and plain and text[0].isalnum()
    if fine:
        assert check_name(text) == text
    else:
        with pytest.raises(InvalidName):
            check_name(text)


def test_names_are_no_part_of_any_path_and_nobody_else_may_look(store):
    with begin(store, "visible-name") as session:
        say(session, [1, 2])
        store.export("visible-name", store.folder / "out")
        paths = list(store.folder.rglob("*"))
        assert len(paths) > 6  # index and journal, two folders, blob, lock files
        for path in [store.folder, *paths]:
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
            assert "visible" not in path.name


def test_modes_do_not_depend_on_the_umask(tmp_path):
    before = os.umask(0)
    try:
        with Store(tmp_path / "s") as store, begin(store, "a") as session:
            say(session, [1, 2])
            for path in [store.folder, *store.folder.rglob("*")]:
                assert path.stat().st_mode & 0o077 == 0, path
    finally:
        os.umask(before)


def test_a_folder_others_may_look_into(tmp_path):
    (tmp_path / "empty").mkdir(mode=0o755)
    Store(tmp_path / "empty").close()
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="chmod 700"):
        Store(tmp_path / "open")
    assert [path.name for path in (tmp_path / "open").iterdir()] == ["thesis.txt"]


def test_list_show_and_rename(store):
    with begin(store, "a", title="Soup", settings={"x": 1}) as session:
        say(session, [1, 2, 3])
        say(session, [4])
        session.undo()
    begin(store, "b").close()
    assert [info.name for info in store.list()] == ["b", "a"]  # used last first
    info = store.show("a")
    assert (info.title, info.settings, info.turns, info.tokens) == ("Soup", {"x": 1}, 2, 3)
    assert info.head == 1 and store.show("b").head is None
    assert info.nbytes == sum(turn.nbytes for turn in store.turns("a"))
    assert 0 < store.usage().nbytes - info.nbytes - 2 * 2048 < 300  # rows beside the turns
    assert abs(info.nbytes - sum(path.stat().st_size for path in store.blobs.iterdir())) < 1200
    assert info.fingerprint == fingerprint()
    store.rename("a", "c")
    with pytest.raises(UnknownSession, match="no session 'a'"):
        store.show("a")
    with store.open("c", fingerprint()) as session:
        assert holds(session, [1, 2, 3])
        with pytest.raises(SessionBusy):
            store.rename("c", "d")
    for taken in ("b", "c"):
        with pytest.raises(SessionExists, match="choose another name"):
            store.rename("c", taken)
    with pytest.raises(InvalidName):
        store.rename("c", "../c")


def test_a_session_without_a_name_gets_one(store):
    with begin(store) as one, begin(store) as two:
        assert one.name != two.name and {one.name, two.name} == {info.name for info in store.list()}


def test_creating_what_is_there(store):
    with begin(store, "a") as session:
        say(session, [1, 2])
        with pytest.raises(SessionExists):
            begin(store, "a")
        assert holds(session, [1, 2])
    assert len(list(store.locks.iterdir())) == 1
    with pytest.raises(ValueError, match="digest of the config"):
        store.create("b", fingerprint=fingerprint(CONFIGS["hawk"]), config=CONFIG)


def test_one_holder_at_a_time(store):
    with begin(store, "a") as session:
        say(session, [1, 2])
        with pytest.raises(SessionBusy, match=f"process {os.getpid()} on .* since .*close it there"):
            store.open("a", fingerprint())
        with pytest.raises(SessionBusy):
            store.delete("a")
        store.export("a", store.folder / "out.state.safetensors")  # reading is free
        assert len(store.turns("a")) == 1
    with store.open("a", fingerprint()):
        pass
    store.delete("a")


def test_another_model_is_refused_and_told_what_differs(store):
    begin(store, "a").close()
    others = {
        "config": fingerprint(CONFIGS["hawk"]),
        "weights": fingerprint(weights="v"),
        "dtype": fingerprint(dtype="bfloat16"),
        "quantization": fingerprint(quantization="int8"),
        "adapter": fingerprint(adapter="v"),
        "tokenizer": fingerprint(tokenizer="v"),
        "template": fingerprint(template="v"),
        "format": fingerprint(format="2"),
    }
    assert others.keys() == fingerprint().to_dict().keys()
    for part, other in others.items():
        with pytest.raises(StateMismatch, match=rf"'a' belongs to another model \({part}: [^;]*\)") as error:
            store.open("a", other)
        assert (error.value.status, error.value.code) == (409, "state_mismatch")
        assert list(fingerprint().differences(other)) == [part]
        assert other.digest != fingerprint().digest
    store.open("a", fingerprint()).close()  # a refusal holds no lease


@pytest.mark.parametrize("bad", [{"weights": ""}, {"weights": "a\n"}, {"weights": 3}, {"dtype": "int8"}])
def test_fingerprints_are_strict(bad):
    with pytest.raises(ValueError, match="the fingerprint's"):
        fingerprint(**bad)


def test_owners_do_not_see_each_other(store):
    other = store.within("key-of-b")
    with begin(store, "a") as session:
        say(session, [1, 2])
    with begin(other, "a", title="mine") as session:
        say(session, [3, 4])
    with pytest.raises(UnknownSession):
        store.within("key-of-c").show("a")
    assert [info.title for info in other.list()] == ["mine"] and store.show("a").title == ""
    with other.open("a", fingerprint()) as session:
        assert holds(session, [3, 4])
        session.fork("b")
    assert len(other.list()) == 2 and len(store.list()) == 1
    store.delete("a")
    with pytest.raises(UnknownSession):
        store.delete("b")
    assert len(other.list()) == 2 and other.usage().sessions == 2


def test_delete_deletes(store):
    secret, ids = "the-secret-recipe", [71, 72, 73, 74, 75, 76]
    with begin(store, "secret-name") as session:
        say(session, [1, 2])
        session.fork("kept")
        session.update(title="secret-title", settings={"s": "secret-setting"})
        state = fake_state([1, 2, *ids[:-1]])
        session.commit(role="secret-role", ids=ids, state=state, pending=ids[-1:], text=secret)
        store.export("secret-name", store.folder.parent / "out")
    words = [b"secret", bytes(b for i in ids for b in (i, 0, 0, 0)), state.layers[0].lru.numpy().tobytes()]
    assert all(word in everything_in(store) for word in words)
    store.delete("secret-name")
    assert not any(word in everything_in(store) for word in words)
    assert [info.name for info in store.list()] == ["kept"] and store.check() == ()
    with store.open("kept", fingerprint()) as session:
        assert holds(session, [1, 2])


def test_the_quota_takes_the_longest_unused_and_never_an_open_one(tmp_path):
    with Store(tmp_path / "s") as plain:
        for number, name in enumerate("abcd"):
            with begin(plain, name) as session:
                say(session, list(range(30)))
            age(plain, name, 100 - number)
        one = plain.usage().nbytes // 4
    with Store(tmp_path / "s", quota_bytes=4 * one + 100) as store, store.open("a", fingerprint()) as held:
        age(store, "a", 1000)
        with begin(store, "e") as session:
            say(session, list(range(30)))
        assert [info.name for info in store.list()] == ["e", "d", "c", "a"]  # b went, not a, which is open
        assert store.usage().nbytes <= 4 * one + 100
        assert holds(held, list(range(30)))
        assert store.check() == ()


def test_an_owner_makes_room_for_what_is_new_and_others_do_not(tmp_path):
    with Store(tmp_path / "s") as plain:
        for owner in ("hers", "his", "his.states"):
            with begin(plain.within(owner), "a") as session:
                say(session, list(range(30)))
        one = plain.usage().nbytes // 3
        age(plain, "a", 100)
    with Store(tmp_path / "s", quota_bytes=3 * one + 100) as store:
        hers, his = store.within("hers"), store.within("his", ["his.states"])
        with begin(his, "b") as session:
            say(session, list(range(30)))
        assert [info.name for info in his.list()] in (["b"], ["b", "a"])
        assert len(his.list()) + len(store.within("his.states").list()) == 2 and len(hers.list()) == 1
        with his.open("b", fingerprint()) as session, pytest.raises(StorageFull, match="of others leave no"):
            say(session, list(range(90)))
            say(session, list(range(90)))
        assert len(hers.list()) == 1 and store.check() == ()
        # What would not do is not begun.
        kept = {info.name for info in his.list()}
        with pytest.raises(StorageFull, match="of others leave no room"):
            store.within("third")._make_room(one, None)
        assert {info.name for info in his.list()} == kept and len(hers.list()) == 1


def test_rows_count_so_nothing_grows_without_end(tmp_path):
    with Store(tmp_path / "s", quota_bytes=20_000) as store, begin(store, "a") as session:
        say(session, [1, 2])
        for _ in range(20):
            session.fork()
            begin(store, settings={"system": "x" * 900}).close()
            assert store.usage().nbytes <= 20_000
        assert 4 < len(store.list()) < 10 and "a" in {info.name for info in store.list()}
        with pytest.raises(StorageFull, match="exceed the quota"):
            begin(store, settings={"system": "x" * 20_000})


def test_an_owner_has_so_many_sessions(tmp_path, monkeypatch):
    monkeypatch.setattr("griffin.sessions.store.MOST_SESSIONS", 3)
    with Store(tmp_path / "s") as store, begin(store, "a") as session:
        session.fork("b")
        begin(store.within("other"), "x").close()
        begin(store, "c").close()
        for more in (lambda: begin(store, "d"), lambda: session.fork("d")):
            with pytest.raises(StorageFull, match="3 sessions, as many as there may be"):
                more()
    with Store(tmp_path / "s", quota_bytes=10**9) as store:
        for name, seconds in (("a", 50), ("b", 90), ("c", 80)):
            age(store, name, seconds)
        begin(store, "d").close()  # beside a quota the one unused for longest makes place
        assert [info.name for info in store.list()] == ["d", "a", "c"]
        assert len(store.within("other").list()) == 1


def test_a_turn_over_the_quota_is_refused_and_costs_nobody_else(tmp_path):
    with Store(tmp_path / "s") as store:
        with begin(store, "a") as session:
            say(session, list(range(30)))
        one = store.usage().nbytes
    with Store(tmp_path / "s", quota_bytes=int(1.5 * one)) as store, begin(store, "b") as session:
        say(session, [1, 2])  # as much as fits
        before = store.usage()
        with pytest.raises(StorageFull, match="exceed the quota") as error:
            say(session, list(range(90)))
            say(session, list(range(90)))
        assert error.value.status == 507
        assert holds(session, [i for turn in session.turns() for i in turn.ids])
        assert store.usage().nbytes <= 1.5 * one and before.turns <= store.usage().turns
        assert store.check() == ()
    with Store(tmp_path / "t", quota_bytes=int(1.5 * one)) as store:
        a, b = begin(store, "a"), begin(store, "b")
        say(a, list(range(30)))
        with pytest.raises(StorageFull, match="delete a session"):
            say(b, list(range(30)))  # a is open
        assert b.head is None and len(list(store.blobs.iterdir())) == 1


def test_old_sessions_are_swept(tmp_path):
    with Store(tmp_path / "s", max_age_seconds=3600) as store:
        for name, seconds in (("new", 0), ("old", 4000), ("older", 5000)):
            with begin(store, name) as session:
                say(session, [1, 2])
            age(store, name, seconds)
        with store.open("older", fingerprint()):
            age(store, "older", 5000)
            assert store.sweep() == 1
            assert {info.name for info in store.list()} == {"new", "older"}
        assert store.sweep() == 1 and [info.name for info in store.list()] == ["new"]
        assert len(list(store.blobs.iterdir())) == 1


@pytest.mark.parametrize("limit", [{"quota_bytes": 0}, {"max_age_seconds": -1}])
def test_limits_are_positive(tmp_path, limit):
    with pytest.raises(ValueError, match="must be positive"):
        Store(tmp_path / "s", **limit)
    assert not (tmp_path / "s").exists()


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
        later.execute("PRAGMA user_version = 2")
    later.close()
    refused("version 2, this griffin keeps version 1")


def test_a_lost_index_does_not_cost_the_states(tmp_path):
    with Store(tmp_path / "s") as store, begin(store, "a") as session:
        say(session, [1, 2])
        kept = (store.folder / "index.sqlite").read_bytes()
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
            before = set(store.blobs.iterdir())
            say(session, ids)
            names.append((set(store.blobs.iterdir()) - before).pop())
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
    (store.blobs / "stray").touch()
    with store.index.transaction() as index:
        index.execute("UPDATE turn SET ids = ? WHERE id = 1", (bytes(12),))
        index.execute("UPDATE turn SET tokens = 9, start = 1 WHERE id = 2")
    found = store.check()
    assert len(found) == 5, found
    for words in ("turn 1: its tokens", "turn 2: it has 1 ids, and 6", "begins at position 1", "stray"):
        assert any(words in problem for problem in found), (words, found)


def test_recover_removes_what_nobody_names(store):
    with begin(store, "a") as session:
        say(session, [1, 2])
        for path in (store.blobs / "left", store.blobs / ".left.part", store.locks / "left"):
            path.touch()
        assert store.recover() == 3 and store.recover() == 0
        assert holds(session, [1, 2])
        with pytest.raises(SessionBusy):
            store.open("a", fingerprint())  # the lock file of an open session is not among them


def test_recover_leaves_the_lock_of_a_session_that_was_made_meanwhile(store, monkeypatch):
    begin(store, "a").close()
    rows = store.index.rows

    def late(query, values=None):
        found = rows(query, values)
        if query == "SELECT key FROM session":  # now another process forks, and opens what it made
            (store.locks / "made-since").touch()
        return found

    monkeypatch.setattr(store.index, "rows", late)
    assert store.recover() == 0 and (store.locks / "made-since").exists()


def test_a_fork_waits_for_who_recovers(store):
    with begin(store, "a") as session:
        with locked(store.writers):
            thread = threading.Thread(target=session.fork, args=("b",))
            thread.start()
            thread.join(0.05)
            assert [info.name for info in store.list()] == ["a"]
        thread.join(10)
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
    with Store(store.folder) as again:
        assert again.usage().sessions == 1 and len(list(again.locks.iterdir())) == 1
        with again.open("a", fingerprint()) as session:
            assert holds(session, [1, 2])


def test_what_is_carried_is_left_alone_and_not_left_behind(store):
    with begin(store, "a") as session:
        say(session, [1, 2])
    with store.carrying() as path:
        store.export("a", path)
        assert Store(store.folder).recover() == 0
        store.within("other").import_(path, "b", fingerprint=fingerprint())
    assert not path.exists() and path.parent == store.blobs  # where `recover` looks
    assert len(list(store.blobs.iterdir())) == 2


def test_export_of_what_is_not_there(store):
    begin(store, "a").close()
    with pytest.raises(ValueError, match="nothing has been said"):
        store.export("a", store.folder / "x")
    with pytest.raises(UnknownTurn):
        store.export("a", store.folder / "x", at=1)
    with pytest.raises(UnknownSession):
        store.export("b", store.folder / "x")
    assert not (store.folder / "x").exists()


def test_every_refusal_has_a_status_and_a_code():
    kinds = SessionError.__subclasses__()
    assert len(kinds) == 8 and len({kind.code for kind in kinds}) == 8
    assert {kind.status for kind in kinds} == {400, 404, 409, 507}


def test_a_file_of_the_same_tokens_and_other_numbers_is_told_apart(store):
    """Two sessions that read the same through models that differ: no file stands in for the other."""
    files = []
    for name, factor in (("a", 1), ("b", 2)):
        with begin(store, name) as session:
            before = set(store.blobs.iterdir())
            state = fake_state([1, 2]).map(lambda t, factor=factor: t * factor if t.dim() > 1 else t)
            session.commit(role="user", ids=[1, 2, 3], state=state, pending=[3])
            files.append((set(store.blobs.iterdir()) - before).pop())
    files[0].write_bytes(files[1].read_bytes())
    with store.open("a", fingerprint()) as session, pytest.raises(StateTorn, match="not the file that was"):
        session.resume()


def test_an_index_that_means_other_tokens_is_told_apart(store):
    with begin(store, "a") as session:
        say(session, [1, 2])
    with store.index.transaction() as index:
        index.execute("UPDATE turn SET chain = ?", ("0" * 32,))
    with store.open("a", fingerprint()) as session, pytest.raises(StateTorn, match="not the file that was"):
        session.resume()


def test_an_index_that_lost_a_turn_is_told_apart(store):
    with begin(store, "a") as session:
        for ids in ([1, 2], [3, 4], [5, 6]):
            say(session, ids)
        with store.index.transaction() as index:
            index.execute("UPDATE turn SET parent = 1 WHERE id = 3")
        with pytest.raises(StateTorn, match="lacks turns"):
            session.resume()
        assert any("turn 3" in problem for problem in store.check())
