"""Items: what clients know by ids of their own, kept beside sessions, on a disk and in memory."""

from __future__ import annotations

import sqlite3

import pytest

from griffin.sessions import (
    Item,
    SessionBusy,
    SessionError,
    StateTorn,
    StorageFull,
    Store,
    UnknownItem,
    UnknownSession,
)
from tests.support.fake_states import begin, disk, fake_state, fingerprint, say


@pytest.fixture(params=["disk", "memory"])
def store(tmp_path, request):
    made = Store(tmp_path / "store") if request.param == "disk" else Store.in_memory()
    with made as opened:
        yield opened


def said(*refs, side="input"):
    return [Item(side, {"id": ref, "type": "message", "text": f"of {ref}"}) for ref in refs]


def refs(found):
    return [item["id"] for item in found]


def test_they_come_back_as_they_went_in_and_in_pages(store):
    begin(store, "talk").close()
    made = store.add_items("talk", [*said("a", "b", "c"), *said("d", side="output")])
    assert made == store.items("talk") and refs(made) == ["a", "b", "c", "d"]
    assert made[0] == {"id": "a", "type": "message", "text": "of a"}
    assert refs(store.items("talk", side="input")) == ["a", "b", "c"]
    assert refs(store.items("talk", newest=True, limit=2)) == ["d", "c"]
    assert refs(store.items("talk", newest=True, limit=2, after="c")) == ["b", "a"]
    assert refs(store.items("talk", after="b", limit=9)) == ["c", "d"]
    assert store.item("talk", "c")["text"] == "of c"
    for ask in (
        lambda: store.item("talk", "x"),
        lambda: store.items("talk", after="x"),
        lambda: store.items("talk", after="d", side="input"),
        lambda: store.remove_item("talk", "x"),
    ):
        with pytest.raises(UnknownItem, match=r"no item '[xd]'"):
            ask()
    store.remove_item("talk", "b")
    assert refs(store.items("talk")) == ["a", "c", "d"]
    with pytest.raises(UnknownSession):
        store.items("nobody")
    assert store.check() == ()


def test_no_more_is_read_at_once_than_is_allowed(store):
    begin(store, "talk").close()
    store.add_items("talk", [Item("input", {"id": ref, "text": "x" * 1000}) for ref in "abc"])
    assert refs(store.items("talk", limit=3, most_bytes=2500)) == ["a", "b"]
    assert refs(store.items("talk", limit=3, most_bytes=10, newest=True)) == ["c"]
    assert refs(store.items("talk", most_bytes=4000)) == ["a", "b", "c"]
    with pytest.raises(SessionError, match="3 items have"):
        store.items("talk", most_bytes=2500)
    assert sorted(store.find_items(["a", "b"], 2500)) == ["a", "b"]
    with pytest.raises(SessionError, match="3 items have"):
        store.find_items(["a", "a", "a"], 2500)


def test_an_id_that_is_taken_becomes_another(store):
    begin(store, "talk").close()
    first, second = refs(store.add_items("talk", said("msg_1", "msg_1")))
    assert first == "msg_1" and second.startswith("msg_") and len(second) == 36
    assert store.item("talk", second)["text"] == "of msg_1"


def test_they_are_kept_with_a_turn_and_a_fork_has_its_own(store):
    with begin(store, "talk") as session:
        say(session, [1, 2, 3])
        after = {"state": fake_state([1, 2, 3, 4]), "pending": [5]}
        session.commit(role="user", ids=[4, 5], items=said("in"), **after)
        session.fork("other", items=said("mine", side="output"))
        with pytest.raises(ValueError, match="not the last"):
            session.commit(role="user", ids=[4], state=None, pending=[9], items=said("never"))
        with pytest.raises(SessionBusy):
            store.add_items("talk", said("x"))
        with pytest.raises(SessionBusy):
            store.remove_item("talk", "in")
    assert refs(store.items("talk")) == ["in"] and refs(store.items("other")) == ["mine"]


def test_whoever_owns_them_finds_them(store):
    own, others = store.within("key", ["key.more"]), store.within("stranger")
    beside = store.within("key.more", ["key"])
    for where, name in ((own, "a"), (beside, "b"), (others, "a")):
        begin(where, name).close()
    own.add_items("a", said("one", "both"))
    beside.add_items("b", [*said("two"), Item("output", {"id": "both", "text": "later"})])
    others.add_items("a", said("theirs"))
    asked = ["one", "two", "both", "theirs", "none"]
    found = own.find_items(asked)
    assert sorted(found) == ["both", "one", "two"] and found["both"]["text"] == "later"
    assert beside.find_items(asked) == found and list(others.find_items(asked)) == ["theirs"]
    beside.delete("b")
    assert own.find_items(asked)["both"]["text"] == "of both" and "two" not in own.find_items(asked)
    own.rename("a", "c")
    assert sorted(own.find_items(asked)) == ["both", "one"]


def test_they_count_and_make_room(store):
    before = store.usage().nbytes
    begin(store, "old").close()
    empty = store.show("old").nbytes
    store.add_items("old", [Item("input", {"id": "a", "text": "x" * 5000})])
    assert store.show("old").nbytes - empty > 5000
    assert store.usage().nbytes - before > 5000
    store.folder.quota_bytes = 12_000
    begin(store, "new").close()
    with pytest.raises(StorageFull, match="exceed the quota"):
        store.add_items("new", [Item("input", {"id": "a", "text": "x" * 12_000})])
    assert refs(store.items("old")) == ["a"] and store.items("new") == []
    store.add_items("new", [Item("input", {"id": "b", "text": "x" * 5000})])
    assert [info.name for info in store.list()] == ["new"], "the one unused for longest made room"
    store.delete("new")
    assert store.usage().nbytes == 0 and store.find_items(["a", "b"]) == {}


def test_a_copy_takes_them_along(store):
    with begin(store, "talk") as session:
        say(session, [1, 2])
        session.commit(
            role="user",
            ids=[4],
            state=fake_state([1, 2]),
            pending=[4],
            items=[*said("a"), *said("b", side="output")],
        )
        memory = Store.in_memory()
        memory.adopt(session, "copy")
    assert memory.items("copy") == store.items("talk")
    assert refs(memory.items("copy", side="output")) == ["b"]
    assert memory.check() == ()


def test_what_is_damaged_is_named(tmp_path):
    with Store(tmp_path / "store") as store:
        begin(store, "talk").close()
        store.add_items("talk", said("a", "b", "c"))
        for statement, words in (
            ("UPDATE item SET body = '[1]' WHERE ref = 'a'", "no plain values by name"),
            ("UPDATE item SET body = '{\"id\": \"z\"}' WHERE ref = 'a'", "the body of another"),
            ("UPDATE item SET side = 'front' WHERE ref = 'a'", "not input or output"),
            ("UPDATE item SET body = x'ff' WHERE ref = 'a'", "not a text"),
        ):
            with sqlite3.connect(disk(store).path / "index.sqlite") as index:
                index.execute(statement)
            index.close()
            (found,) = store.check()
            assert "'a'" in found and words in found, found
            with pytest.raises(StateTorn, match=words):
                store.item("talk", "a")
            assert store.item("talk", "b")["id"] == "b"
            with sqlite3.connect(disk(store).path / "index.sqlite") as index:
                index.execute(
                    "UPDATE item SET side = 'input', body = :body WHERE ref = 'a'",
                    {"body": '{"id": "a", "type": "message", "text": "of a"}'},
                )
            index.close()
            assert store.check() == ()
        with sqlite3.connect(disk(store).path / "index.sqlite") as index:
            index.execute("UPDATE item SET session = 77 WHERE ref = 'c'")
        index.close()
        assert any("refers to a session that is gone" in line for line in store.check())
        with store.open("talk", fingerprint()):
            pass
    assert issubclass(UnknownItem, SessionError) and UnknownItem.status == 404
