"""A store in memory: leases, limits and leftovers as on a disk, and nothing on one."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from griffin.sessions import SessionBusy, StateTorn, StorageFull, Store, unfinished_name
from tests.support.fake_states import CONFIG, begin, disk, fingerprint, holds, random_ids, say


@pytest.fixture
def memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store.in_memory() as store:
        yield store
        assert not list(tmp_path.iterdir())


def test_one_holder_at_a_time(memory):
    with begin(memory, "a") as session:
        say(session, [1, 2])
        for use in (
            lambda: memory.open("a", fingerprint()),
            lambda: memory.delete("a"),
            lambda: memory.rename("a", "b"),
        ):
            with pytest.raises(SessionBusy, match="in use by this process"):
                use()
        assert memory.busy("a") and len(memory.turns("a")) == 1
        refused = []

        def elsewhere() -> None:
            with pytest.raises(SessionBusy):
                memory.open("a", fingerprint())
            refused.append(True)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert refused
    assert not memory.busy("a")
    memory.rename("a", "b")
    with memory.open("b", fingerprint()) as session:
        assert holds(session, [1, 2])
    memory.delete("b")
    assert memory.usage().nbytes == 0 and not memory.folder.blobs_there()
    assert not memory.folder.locks_there()


def test_limits(memory):
    memory.folder.quota_bytes = 12_000
    with begin(memory, "a") as session:
        say(session, [1, 2])
        for _ in range(20):
            begin(memory).close()
            assert memory.usage().nbytes <= 12_000
        assert "a" in {info.name for info in memory.list()}
        with pytest.raises(StorageFull, match="exceed the quota"):
            begin(memory, settings={"system": "x" * 12_000})
    memory.folder.max_age_seconds = 1e-9
    assert memory.sweep() > 2 and memory.list() == ()


def test_what_is_left_over_goes(memory):
    begin(memory, unfinished_name()).close()
    memory.folder.write("stray", [b"x"])
    assert memory.check()[0].startswith("no turn of memory names the file stray")
    with memory.folder.writers():
        assert memory.recover() == 0
    assert memory.recover() == 2 and memory.recover() == 0 and memory.check() == ()


def test_what_is_torn_is_named(memory):
    with begin(memory, "a") as session:
        say(session, [1, 2])
        [name] = memory.folder.blobs_there()
        data = memory.folder.read_bytes(name)
        for damaged in (data[:-1], data[:7], b"", data[:-9] + b"x" + data[-8:]):
            memory.folder.write(name, [damaged])
            with pytest.raises(StateTorn, match=name):
                session.resume()
            assert name in memory.check()[0]
        memory.folder.discard(name)
        with pytest.raises(StateTorn, match="missing in memory"):
            session.resume()


def test_it_carries_no_file_between_namespaces(memory):
    with pytest.raises(ValueError, match="fork"), memory.carrying():
        pass


def test_a_session_keeps_its_store_and_takes_it_along():
    session = begin(Store.in_memory(), "a")
    say(session, [1, 2])
    assert holds(session, [1, 2]) and not session.durable
    blobs = weakref.ref(session._folder)
    session.close()
    del session
    gc.collect()
    assert blobs() is None


@pytest.mark.parametrize("source", ["memory", "disk"])
@pytest.mark.parametrize("target", ["memory", "disk"])
def test_a_session_is_copied_to_another_store(tmp_path, source, target):
    import random

    chance = random.Random(2)
    stores = {"memory": Store.in_memory, "disk": lambda: Store(tmp_path / str(chance.random()))}
    with stores[source]() as one, stores[target]() as other, begin(one, "a", title="T") as session:
        turns = [random_ids(chance, 30) for _ in range(4)]
        for ids in turns[:3]:
            say(session, ids)
        session.undo(2)
        say(session, turns[3])
        session.fork("gap")  # numbers with a gap: 1, 4
        session.update(settings={"x": 1})
        session.goto(2)
        assert other.adopt(session, "b") == "b"
        assert holds(session, [*turns[0], *turns[1]])  # open and where it was
        with one.open("gap", fingerprint()) as gap:
            other.adopt(gap, "gap")
        tree = [(t.number, t.parent, t.ids, t.text, t.chain, t.nbytes) for t in session.tree()]
        with other.open("b", fingerprint()) as copy:
            assert (copy.title, copy.settings, copy.head.number) == ("T", {"x": 1}, 2)
            told = [(t.number, t.parent, t.ids, t.text, t.chain, t.nbytes) for t in copy.tree()]
            assert told == tree and copy.durable == (target == "disk")
            assert copy.redo().number == 3 and holds(copy, [i for ids in turns[:3] for i in ids])
            copy.goto(4)
            assert holds(copy, [*turns[0], *turns[3]])
        assert [turn.number for turn in other.turns("gap")] == [1, 4]
        assert other.check() == () and one.check() == ()
        assert other.usage().turns == 4 + 2


def test_a_copy_without_room_leaves_nothing(tmp_path):
    with Store(tmp_path / "s", quota_bytes=4_000) as store, begin(Store.in_memory()) as session:
        for _ in range(4):
            say(session, list(range(30)))
        with pytest.raises(StorageFull):
            store.adopt(session, "a")
        assert store.list() == () and not list(disk(store).blobs.iterdir())


def test_a_turn_takes_what_its_pieces_take():
    """The recurrent part and its own tokens' keys and values: 2 layers' 6 + 12 floats, and 64 bytes
    a token here."""
    with Store.in_memory() as store, begin(store) as session:
        assert session.config == CONFIG
        say(session, list(range(20)))
        say(session, list(range(5)))
        sizes = sorted(len(store.folder.read_bytes(name)) for name in store.folder.blobs_there())
        header = 1_100
        assert sizes[0] < 2 * (6 + 12) * 4 + 5 * 64 + header
        assert sizes[1] < 2 * (6 + 12) * 4 + 16 * 64 + header
