"""Turns without a state of their own: kept several at once, stood at where their ids are known."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from griffin.engine import Seen
from griffin.sessions import Draft, Session, StorageFull, Store, read_state_info
from griffin.sessions.index import FILES
from griffin.sessions.tree import read_ids
from tests.support.fake_states import (
    begin,
    fake_state,
    fingerprint,
    holds,
    random_ids,
    same,
    say,
)


@pytest.fixture(params=["disk", "memory"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    with Store(tmp_path / "s") if request.param == "disk" else Store.in_memory() as opened:
        yield opened


def keep(session: Session, *turns: list[int], pending: int = 1) -> list[int]:
    """Commit turns in one step, the last with the state after all of them; return all tokens."""
    tokens = [*session.ids(), *(i for ids in turns for i in ids)]
    cut = len(tokens) - pending
    *before, last = turns
    session.commit(
        role="model",
        ids=last,
        state=fake_state(tokens[:cut], session.config),
        pending=tokens[cut:],
        before=[Draft("user", ids, f"said {len(ids)}", {"n": len(ids)}) for ids in before],
    )
    return tokens


def test_turns_that_come_together(store):
    chance = random.Random(4)
    with begin(store, "a") as session:
        say(session, [1, 2, 3], pending=2)
        first, second, third = (random_ids(chance, 30) for _ in range(3))
        tokens = keep(session, first, second, third)
        assert holds(session, tokens) and session.tokens == len(tokens)
        assert [(t.number, t.parent, t.role, t.kept, t.restorable) for t in session.tree()] == [
            (1, None, "user", True, True),
            (2, 1, "user", False, True),
            (3, 2, "user", False, True),
            (4, 3, "model", True, True),
        ]
        turn = session.turns()[1]
        assert (turn.ids, turn.pending, turn.tokens) == (tuple(first), (), 3 + len(first))
        assert (turn.text, turn.stats) == (f"said {len(first)}", {"n": len(first)})
        say(session, [7])  # goes on from a kept one: its file holds what it added
        assert holds(session, [*tokens, 7])
    assert store.check() == ()


def test_where_one_stands_after_a_turn_without_a_state(store):
    with begin(store, "a") as session:
        say(session, [1, 2, 3], pending=2)
        keep(session, [4, 5], [6], [7, 8])
        session.undo(2)
        context = session.resume()
        assert same(context.state, fake_state([1])) and context.pending == (2, 3, 4, 5)
        assert context.tokens == session.tokens == 5 and session.pending == context.pending
        assert context.seen.marks(97).nonzero().flatten().tolist() == [1]
        assert session.redo().number == 3 and session.pending == (2, 3, 4, 5, 6)
        # A branch from there: its file holds its window, since the turn before it has no state.
        keep(session, [9] * 5)
        assert holds(session, [1, 2, 3, 4, 5, 6, *[9] * 5])
        session.goto(4)
        assert holds(session, [1, 2, 3, 4, 5, 6, 7, 8])
        session.goto(2, keep=False)
        assert session.pending == (2, 3, 4, 5) and session.fork("b") == "b"
        assert [turn.number for turn in session.turns()] == [1, 2]
    with store.open("b", fingerprint()) as session:
        assert session.head.number == 2 and session.pending == (2, 3, 4, 5)
    assert store.check() == ()


def test_a_first_turn_without_a_state(store):
    with begin(store, "a") as session:
        tokens = keep(session, [1, 2], [3])
        session.undo()
        context = session.resume()
        assert context.state is None and context.pending == (1, 2) and context.tokens == 2
        assert not context.seen.marks(97).any()
        session.undo()
        assert session.pending == session.resume().pending == ()
        session.redo(2)
        assert holds(session, tokens)


def test_a_session_reopens_at_a_turn_without_a_state(store):
    with begin(store, "a") as session:
        keep(session, [1, 2], [3], [4])
        session.undo()
    with store.open("a", fingerprint()) as session:
        assert session.head.number == 2 and session.pending == (1, 2, 3)
        assert store.show("a").head == 2


def test_it_is_exported_with_all_that_is_to_be_read(store, tmp_path):
    with begin(store, "a") as session:
        say(session, [1, 2, 3])
        tokens = keep(session, [4] * 20, [5], [6])
        session.export(tmp_path / "f", at=3)
        store.export("a", tmp_path / "g", at=2)
    info = read_state_info(tmp_path / "f")
    assert info.pending == (3, *[4] * 20, 5) and info.tokens == 24 and len(info.turns) == 3
    store.import_(tmp_path / "f", "b")
    with store.open("b", fingerprint()) as session:
        context = session.resume()
        assert same(context.state, fake_state([1, 2])) and context.pending == info.pending
        assert keep(session, [6]) == tokens and holds(session, tokens)
        session.undo(2)
        assert session.resume().state is None and session.pending == tuple(tokens[:23])
    with begin(store, "c") as session:
        keep(session, [1, 2], [3])
        session.export(tmp_path / "h", at=1)  # nothing has been read of it
    store.import_(tmp_path / "h", "d")
    with store.open("d", fingerprint()) as session:
        assert session.resume().state is None and session.pending == (1, 2)
    assert store.check() == ()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"before": [Draft("user", [])]}, "at least one token"),
        ({"before": [Draft("user", [97])]}, "hold 97 at place 0"),
        ({"before": [Draft("user", [3], "\udfff")]}, "UTF-8"),
        ({"before": [Draft("\ud800", [3])]}, "UTF-8"),
        ({"before": [Draft("user", [3], None, {"a": {1}})]}, "JSON"),
        ({"before": [Draft("user", [3]), Draft("user", [3])]}, "would be at 5"),
        ({"pending": [9, 9, 5]}, "not the last"),
    ],
)
def test_turns_that_do_not_fit_are_refused_together(store, wrong, message):
    with begin(store, "a") as session:
        say(session, [1, 2])
        good = {
            "role": "model",
            "ids": [4, 5],
            "state": fake_state([1, 2, 3, 4]),
            "pending": [5],
            "before": [Draft("user", [3])],
        }
        with pytest.raises(ValueError, match=message):
            session.commit(**{**good, **wrong})
        assert holds(session, [1, 2]) and len(session.tree()) == 1
        assert len(store.folder.blobs_there()) == 1
        session.commit(**good)
        assert holds(session, [1, 2, 3, 4, 5])


def test_quota_and_rollback_hold_for_all_of_them(store, monkeypatch):
    with begin(store, "a") as session:
        say(session, [1, 2])
        usage = store.usage()
        monkeypatch.setattr(store.folder, "quota_bytes", usage.nbytes + 3000)
        with pytest.raises(StorageFull, match="exceed the quota"):
            keep(session, *([3] for _ in range(20)))
        assert store.usage() == usage and holds(session, [1, 2])
        monkeypatch.setattr("griffin.sessions.session.Blob", lambda *_: 1 / 0)  # after all others
        with pytest.raises(ZeroDivisionError):
            keep(session, [3])
        monkeypatch.undo()
        assert store.usage() == usage and len(store.folder.blobs_there()) == 1
        assert holds(session, keep(session, [3], [4]))
    assert store.check() == ()


def test_resuming_reads_no_ids_and_no_turns_but_those_it_needs(store, monkeypatch):
    """However long the conversation: the files of a window, and nothing else, are looked at."""
    with begin(store, "a") as session:
        for number in range(30):
            say(session, [number, number])
        real, asked = store.folder.index.rows, []

        def rows(query, values=None):
            asked.append(query)
            return real(query, values)

        monkeypatch.setattr(store.folder.index, "rows", rows)
        context = session.resume()
        assert asked == [FILES] and "ids" not in FILES
        assert context.seen.marks(97).sum() == 30 and len(asked) == 2  # when somebody asks
        assert read_ids(session.turns()) == [i for n in range(30) for i in (n, n)][:-1]
        assert isinstance(context.seen, Seen)


def test_committing_hashes_what_is_new_alone(store, monkeypatch):
    from griffin.sessions import draft

    with begin(store, "a") as session:
        say(session, [1] * 50)
        hashed, real = [], draft.extend_chain
        monkeypatch.setattr(
            draft, "extend_chain", lambda chain, ids: hashed.append(len(ids)) or real(chain, ids)
        )
        keep(session, [2, 3], [4])
        assert hashed == [2, 1]


def test_all_branches_are_forked(store):
    with begin(store, "a", title="Soup", settings={"x": 1}) as session:
        for ids in ([1, 2], [3], [4, 5]):
            say(session, ids)
        session.undo(2)
        say(session, [6])
        say(session, [7])
        session.undo()
        assert session.fork("whole", whole=True) == "whole"
        session.fork("at-2", at=2, whole=True, title="Stew")
        session.fork("at-5", at=5, whole=True)
        tree = session.tree()
        blobs = store.folder.blobs_there()
    for name, head, redone in (("whole", 4, 5), ("at-2", 2, 3), ("at-5", 5, None)):
        info = store.show(name)
        assert (info.parent, info.turns, info.head) == ("a", 5, head)
        assert (info.title, info.settings) == ("Stew" if name == "at-2" else "Soup", {"x": 1})
        with store.open(name, fingerprint()) as copy:
            assert copy.tree() == tree and copy.head.number == head
            if redone:
                assert copy.redo().number == redone
            copy.goto(3)
            assert holds(copy, [1, 2, 3, 4, 5])
            copy.goto(5)
            assert holds(copy, [1, 2, 6, 7])
            assert say(copy, [8]).number == 6
    assert set(blobs) < set(store.folder.blobs_there())
    store.delete("a")
    with store.open("whole", fingerprint()) as copy:
        copy.goto(3)
        assert holds(copy, [1, 2, 3, 4, 5])
    assert store.check() == ()


def test_a_fork_in_another_namespace_of_the_owner(store):
    hers = store.within("hers", ["hers.states"])
    states = store.within("hers.states", ["hers"])
    with begin(hers, "a") as session:
        say(session, [1, 2, 3])
        say(session, [4])
        assert session.fork("a", namespace="hers.states", whole=True) == "a"
        with pytest.raises(ValueError, match=r"'his' is no namespace of .* 'hers', 'hers.states'"):
            session.fork("b", namespace="his")
    assert [info.name for info in hers.list()] == ["a"]
    assert [(info.name, info.parent, info.turns) for info in states.list()] == [("a", "", 2)]
    hers.delete("a")
    with states.open("a", fingerprint()) as session:
        assert holds(session, [1, 2, 3, 4])
        assert session.fork("back", namespace="hers") == "back"
    states.delete("a")
    with hers.open("back", fingerprint()) as session:
        assert holds(session, [1, 2, 3, 4])
    assert store.check() == () and len(store.folder.blobs_there()) == 2
    hers.delete("back")
    assert store.usage().nbytes == 0 and not store.folder.blobs_there()


def test_what_namespaces_share_counts_once_and_makes_room(store):
    hers = store.within("hers", ["hers.states"])
    with begin(hers, "a") as session:
        say(session, list(range(40)))
        session.fork("a", namespace="hers.states")
        store.folder.quota_bytes = store.usage().nbytes + 1000
        say(session, list(range(40)))  # the other goes: its row alone, for its turn is shared
        assert store.within("hers.states").list() == ()
        assert store.usage().nbytes <= store.folder.quota_bytes
    assert store.check() == ()


def test_a_turn_that_another_namespace_has_counts_once(store):
    """Where a store does not say that both are one owner's, the other one stays."""
    hers = store.within("hers")
    with begin(store.within("hers", ["hers.states"]), "a") as session:
        say(session, list(range(40)))
        session.fork("a", namespace="hers.states")
    with begin(hers, "b") as session:
        say(session, [1])
    # Without b there is room for a short turn, but not if the shared one counted twice.
    store.folder.quota_bytes = store.usage().nbytes + 500
    with hers.open("a", fingerprint()) as session:
        say(session, [1])
        assert [info.name for info in hers.list()] == ["a"]
        assert [info.name for info in store.within("hers.states").list()] == ["a"]
        assert store.usage().nbytes <= store.folder.quota_bytes
    assert store.check() == ()
