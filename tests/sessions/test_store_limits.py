"""The folder: how much it holds, and who makes room."""

from __future__ import annotations

import time

import pytest

from griffin.sessions import (
    StorageFull,
    Store,
)
from tests.support.fake_states import begin, disk, fingerprint, holds, say


def age(store: Store, name: str, seconds: float) -> None:
    """Let a session look unused for so long."""
    with store.folder.index.transaction() as index:
        index.execute("UPDATE session SET used = ? WHERE name = ?", (time.time() - seconds, name))


def test_the_quota_takes_the_longest_unused_and_never_an_open_one(tmp_path):
    with Store(tmp_path / "s") as plain:
        for number, name in enumerate("abcd"):
            with begin(plain, name) as session:
                say(session, list(range(30)))
            age(plain, name, 100 - number)
        one = plain.usage().nbytes // 4
    with (
        Store(tmp_path / "s", quota_bytes=4 * one + 100) as store,
        store.open("a", fingerprint()) as held,
    ):
        age(store, "a", 1000)
        with begin(store, "e") as session:
            say(session, list(range(30)))
        # The one that went is b, not a, which is open.
        assert [info.name for info in store.list()] == ["e", "d", "c", "a"]
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
        assert (
            len(his.list()) + len(store.within("his.states").list()) == 2 and len(hers.list()) == 1
        )
        with (
            his.open("b", fingerprint()) as session,
            pytest.raises(StorageFull, match="of others leave no"),
        ):
            say(session, list(range(90)))
            say(session, list(range(90)))
        assert len(hers.list()) == 1 and store.check() == ()
        # What would not do is not begun.
        kept = {info.name for info in his.list()}
        with pytest.raises(StorageFull, match="of others leave no room"):
            store.folder._make_room(one, ("third",), None)
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
    monkeypatch.setattr("griffin.sessions.folder.MOST_SESSIONS", 3)
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
        assert b.head is None and len(list(disk(store).blobs.iterdir())) == 1


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
        assert len(list(disk(store).blobs.iterdir())) == 1


@pytest.mark.parametrize("limit", [{"quota_bytes": 0}, {"max_age_seconds": -1}])
def test_limits_are_positive(tmp_path, limit):
    with pytest.raises(ValueError, match="must be positive"):
        Store(tmp_path / "s", **limit)
    assert not (tmp_path / "s").exists()
