"""Sessions that an earlier version kept (see make_store.py) open unchanged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from griffin.model import State
from griffin.sessions import Session, Store
from tests.golden.make_store import NAMESPACES, digest

HERE = Path(__file__).parent / "store"
EXPECTED = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    shutil.copytree(HERE, tmp_path / "store")
    (tmp_path / "store").chmod(0o700)
    with Store(tmp_path / "store") as opened:
        yield opened


def opened(store: Store, name: str) -> Session:
    namespace, _, name = name.partition("/")
    own = store.within(namespace, NAMESPACES)
    return own.open(name, own.show(name).fingerprint)


def test_all_are_there_and_whole(store):
    there = {
        f"{namespace}/{info.name}": (info.head, info.title, info.settings)
        for namespace in NAMESPACES
        for info in store.within(namespace).list()
    }
    assert there == {n: (e["head"], e["title"], e["settings"]) for n, e in EXPECTED.items()}
    assert store.check() == () and store.recover() == 0


@pytest.mark.parametrize("name", EXPECTED)
def test_each_turn_is_what_it_was(store, name):
    with opened(store, name) as session:
        turns = session.tree()
        for turn, then in zip(turns, EXPECTED[name]["turns"], strict=True):
            said = ("number", "parent", "role", "text", "chain", "stats")
            assert {part: getattr(turn, part) for part in said} == {p: then[p] for p in said}
            assert list(turn.ids) == then["ids"] and turn.kept == (then["resumed"] is not None)
            session.goto(turn.number, keep=False)
            context = session.resume()
            if turn.kept:
                assert list(context.pending) == then["resumed"]["pending"]
                assert context.tokens == then["resumed"]["tokens"]
                assert digest(context.state) == then["resumed"]["state"]
            else:  # the version that wrote it could not stand here
                assert context.state is None and len(context.pending) == context.tokens
                assert context.pending[-len(turn.ids) :] == turn.ids


@pytest.mark.parametrize("name", EXPECTED)
def test_each_is_gone_on_with(store, name):
    """Whatever the numbers are: a new turn after each one is kept, and all that was there stays."""
    with opened(store, name) as session:
        for turn in [None, *session.tree()]:
            session.goto(turn.number if turn else None)
            context = session.resume()
            ids = [1, 2, 3]
            read = len(context.pending) + len(ids) - 1
            dtype = session.fingerprint.torch_dtype
            state = context.state or State.zeros(session.config, dtype=dtype)
            state = State(state.pos + read, state.layers)
            session.commit(role="exchange", ids=ids, state=state, pending=ids[-1:])
            after = session.resume()
            assert after.pending == (3,) and after.tokens == context.tokens + 3
            assert digest(after.state) == digest(state)
            assert session.undo() == turn
    assert store.check() == ()
