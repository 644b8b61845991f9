"""Stores that were damaged at random: bytes, rows, tables, files, modes.

Of two sessions one is damaged, or the folder around both. Whatever is asked of such a store gets an
answer or one of our own errors; `check` gets an answer if the store could be opened. What concerns
the one session leaves the other whole: it is listed, goes on from its very state, and grows.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from griffin.sessions import Item, Session, SessionError, Store
from tests.support.fake_states import begin, fingerprint, holds, say

ALLOWED = ()  # `attempt` lets our own pass where they may come, and no further

HURT, WHOLE = "hurt", "whole"
TURNS = ([1, 2, 3], list(range(20)), [7, 8], [9])  # of both sessions
ITEMS = ("msg_a", "fc_b", "msg_c")  # ids of both

_VALUES: tuple[object, ...] = (
    *(None, -1, 0, 1, 2, 3, 5, 1 << 31, (1 << 63) - 1, -(1 << 63), 1.5, 1e300, float("inf")),
    *("", "x", "0" * 32, "\0", "a\nb", "../index.sqlite", "/etc/passwd", "{}", "[]", "[1]"),
    *("[" * 100_000, '{"a":' * 500 + "1" + "}" * 500, '{"a": 1e999}', "9" * 5000, "\x1b[2J"),
    *(b"", b"\xff", b"abc", bytes(5), b"\xff" * 8, bytes(1 << 16)),
)
_COLUMNS = {
    "turn": (
        *("id", "parent", "role", "text", "ids", "tokens", "chain", "pending", "pos", "start"),
        *("file", "digest", "nbytes", "stats", "created"),
    ),
    "session": (
        *("key", "name", "title", "parent", "fingerprint", "config", "settings", "head", "tip"),
        *("created", "used"),
    ),
    "member": ("number",),
    "item": ("session", "ref", "side", "body"),
}
_OWN = {
    "turn": "id IN (SELECT turn FROM member WHERE session = 1)",
    "session": "id = 1",
    "member": "session = 1",
    "item": "session = 1",
}


class Case(NamedTuple):
    """A damage. contained: it concerns the one session alone, and the other must be whole."""

    words: str
    apply: Callable[[Path], object]
    contained: bool

    def __str__(self) -> str:
        return self.words


def make(chance: random.Random) -> Case:
    """Draw a damage, or two of a row."""
    kinds = (_row, _row, _row, _cycle, _schema, _index_bytes, _beside, _blob, _entry, _mode)
    case = chance.choice(kinds)(chance)
    if case.contained and chance.random() < 0.3:
        more = _row(chance)
        first = case.apply
        return Case(
            f"{case.words}; {more.words}",
            lambda folder: (first(folder), more.apply(folder)),
            more.contained,
        )
    return case


def attempt(case: Case) -> None:
    """Damage a store and ask everything of it. AssertionError for what must not be."""
    with tempfile.TemporaryDirectory(prefix="griffin-fuzz-") as parent:
        folder = Path(parent) / "store"
        shutil.copytree(_sound(), folder)
        case.apply(folder)
        log = logging.getLogger("griffin.sessions")
        log.disabled = True  # what was mended is said thousands of times
        try:
            _ask(folder, case)
        finally:
            log.disabled = False
            for path in (folder, *folder.iterdir()):
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o700)


@contextmanager
def ours(folder: Path) -> Iterator[None]:
    """Let our own errors pass: a SessionError, or one that says what is wrong with the folder."""
    try:
        yield
    except SessionError as error:
        assert "\n" not in str(error), error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) or type(error) is ValueError:
            told = ("nothing has been said", "the state is at position", "no state is given")
            assert any(words in str(error) for words in (str(folder), *told)), error
            return
        raise


def _ask(folder: Path, case: Case) -> None:
    store = None
    with ours(folder):
        store = Store(folder)
    if store is None:
        assert not case.contained, "the store could not be opened"
        return
    with closing(store):
        for said in store.check():
            assert said and said.isprintable(), said
        listed: list[str] = []
        with ours(folder):
            listed = [info.name for info in store.list()]
        if case.contained:
            assert WHOLE in listed, listed
            _whole(store)
        for ask in _questions(store):
            with ours(folder):
                ask()
        with ours(folder), store.open(HURT, fingerprint()) as session:
            for ask in _requests(session, store):
                with ours(folder):
                    ask()
        with ours(folder):
            store.delete(HURT)
        if case.contained:
            _whole(store)


def _questions(store: Store) -> tuple[Callable[[], object], ...]:
    return (
        store.usage,
        lambda: store.show(HURT),
        lambda: [turn.ids for turn in store.turns(HURT)],
        lambda: store.busy(HURT),
        lambda: store.items(HURT, side="input", limit=2, newest=True),
        lambda: store.item(HURT, ITEMS[0]),
        lambda: store.find_items(ITEMS),
        lambda: store.add_items(HURT, _items()),
        lambda: store.remove_item(HURT, ITEMS[1]),
        lambda: store.export(HURT, _elsewhere(store)),
        lambda: store.export(HURT, _elsewhere(store), at=2),
        lambda: store.rename(HURT, "other"),
        lambda: store.rename("other", HURT),
        store.sweep,
        store.recover,
    )


def _requests(session: Session, store: Store) -> tuple[Callable[[], object], ...]:
    return (
        lambda: session.resume().seen.marks(97),
        lambda: session.ids(),
        lambda: session.tree(),
        lambda: session.branches(),
        lambda: session.fork("fork"),
        lambda: session.fork("fork-whole", whole=True),
        lambda: store.delete("fork"),
        lambda: session.undo(),
        lambda: session.redo(),
        lambda: session.goto(1),
        lambda: say(session, [5]),
        lambda: session.resume(),
        lambda: session.update(title="t"),
        lambda: Store.in_memory().adopt(session, "copy"),
    )


def _whole(store: Store) -> None:
    """See that the other session is as it was."""
    kept = [item for item in store.items(WHOLE) if item["id"] in ITEMS]
    assert kept == [item.body for item in _items()], "its items are others"
    with store.open(WHOLE, fingerprint()) as session:
        tokens = list(session.ids())
        assert holds(session, tokens), "its state is another"
        say(session, [11])
        assert holds(session, [*tokens, 11]), "it does not go on"


def _items() -> list[Item]:
    return [Item("input", {"id": ref, "text": "said"}) for ref in ITEMS]


def _elsewhere(store: Store) -> Path:
    return Path(str(store.folder)).parent / "exported"


@cache
def _sound() -> Path:
    """Make a store once for a process."""
    folder = Path(tempfile.mkdtemp(prefix="griffin-fuzz-sound-")) / "store"
    with Store(folder) as store:
        for name in (HURT, WHOLE):
            with begin(store, name, title=name) as session:
                for ids in TURNS:
                    say(session, ids)
                session.undo(2)
                say(session, [4, 5, 6])
            store.add_items(name, _items())
    return folder


def _change(folder: Path, statement: str, values: dict[str, Any] | None = None) -> None:
    """Change the index as nothing of ours would."""
    with closing(sqlite3.connect(folder / "index.sqlite", isolation_level=None)) as index:
        index.execute("PRAGMA foreign_keys = OFF")
        index.execute("PRAGMA ignore_check_constraints = ON")
        with suppress(sqlite3.IntegrityError, OverflowError):
            index.execute(statement, values or {})


def _row(chance: random.Random) -> Case:
    table = chance.choice(list(_COLUMNS))
    column, value = chance.choice(_COLUMNS[table]), chance.choice(_VALUES)
    own, place = _OWN[table], chance.randrange(5)
    key = "id" if table != "member" else "turn"
    where = f"{key} = (SELECT {key} FROM {table} WHERE {own} ORDER BY {key} LIMIT 1 OFFSET :place)"
    if table == "session":
        where = own
    shown = ":value" if chance.random() < 0.9 else "CAST(:value AS TEXT)"
    if chance.random() < 0.1:
        statement = f"DELETE FROM {table} WHERE {where}"
        return Case(statement, lambda f: _change(f, statement, {"place": place}), True)
    statement = f"UPDATE {table} SET {column} = {shown} WHERE {where}"
    values = {"value": value, "place": place}
    contained = column != "id" or value != (1 << 63) - 1  # after which there is none to give
    return Case(f"{statement} {value!r:.40}", lambda f: _change(f, statement, values), contained)


def _cycle(chance: random.Random) -> Case:
    """Turns of the session that come one after another, and the first after the last."""
    length = chance.randint(1, 4)
    statement = (
        f"UPDATE turn SET parent = CASE id WHEN 1 THEN {length} ELSE id - 1 END"
        f" WHERE id <= {length}"
    )
    return Case(statement, lambda folder: _change(folder, statement), True)


def _schema(chance: random.Random) -> Case:
    table = chance.choice(list(_COLUMNS))
    statement = chance.choice(
        (
            f"DROP TABLE {table}",
            f"ALTER TABLE {table} RENAME TO other",
            f"ALTER TABLE {table} RENAME COLUMN {_COLUMNS[table][-1]} TO other",
            f"DELETE FROM {table}",
            f"PRAGMA user_version = {chance.choice((0, 1, 3, -1))}",
            "PRAGMA application_id = 5",
            "DROP INDEX turn_parent",
            f"CREATE TRIGGER t AFTER UPDATE ON {table} BEGIN DELETE FROM turn; END",
            "CREATE VIEW v AS SELECT * FROM turn",
        )
    )
    return Case(statement, lambda folder: _change(folder, statement), False)


def _index_bytes(chance: random.Random) -> Case:
    seed = chance.randrange(1 << 30)

    def apply(folder: Path) -> None:
        _hurt_bytes(folder / "index.sqlite", random.Random(seed))

    return Case(f"bytes of the index ({seed})", apply, False)


def _beside(chance: random.Random) -> Case:
    """What lies beside the index: left over, garbage, or no file."""
    name = f"index.sqlite-{chance.choice(('wal', 'shm', 'journal'))}"
    if chance.random() < 0.2:
        name = chance.choice(("opening.lock", "writers.lock", "network"))
    return _put(chance, lambda folder: folder / name, name)


def _blob(chance: random.Random) -> Case:
    """The file of a turn of the one session: bytes of it, or something in its place."""
    seed, which = chance.randrange(1 << 30), chance.randrange(4)

    def place(folder: Path) -> Path:
        with closing(sqlite3.connect(folder / "index.sqlite")) as index:
            rows = index.execute(f"SELECT file FROM turn WHERE {_OWN['turn']}").fetchall()
        return folder / "blobs" / str(rows[which % len(rows)][0])

    if chance.random() < 0.5:
        return Case(
            f"bytes of a blob ({seed})", lambda f: _hurt_bytes(place(f), random.Random(seed)), True
        )
    return _put(chance, place, "blob", contained=True)


def _entry(chance: random.Random) -> Case:
    """Something more in a folder, or in the place of the one session's lock."""
    inner = chance.choice(("blobs", "locks"))
    name = chance.choice(("x", "0" * 32, "-", "a\nb", ".part"))
    if chance.random() < 0.3:

        def lock(folder: Path) -> Path:
            with closing(sqlite3.connect(folder / "index.sqlite")) as index:
                key = index.execute("SELECT key FROM session WHERE id = 1").fetchone()[0]
            return folder / "locks" / key

        return _put(chance, lock, "lock", contained=True)
    if chance.random() < 0.2:
        return _put(chance, lambda folder: folder / inner, inner)
    return _put(chance, lambda folder: folder / inner / name, f"{inner}/{name!r}", contained=True)


def _mode(chance: random.Random) -> Case:
    name = chance.choice(("blobs", "locks", "index.sqlite", ".", "opening.lock"))
    mode = chance.choice((0o777, 0o755, 0o000, 0o700, 0o500, 0o400))
    return Case(f"{name} {mode:o}", lambda folder: (folder / name).chmod(mode), False)


def _put(
    chance: random.Random, place: Callable[[Path], Path], words: str, contained: bool = False
) -> Case:
    """Put something in a place, instead of what is there."""
    kind = chance.choice(("nothing", "folder", "full folder", "link", "loop", "pipe", "garbage"))
    data = chance.randbytes(chance.choice((0, 1, 100, 5000)))

    def apply(folder: Path) -> None:
        path = place(folder)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        if kind.endswith("folder"):
            path.mkdir()
            if kind == "full folder":
                (path / "within").touch()
        elif kind == "link":
            path.symlink_to("/etc/passwd")
        elif kind == "loop":
            path.symlink_to(path)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "garbage":
            path.write_bytes(data)

    return Case(f"{words}: {kind}", apply, contained)


def _hurt_bytes(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    way = chance.randrange(4)
    if way == 0:
        del data[chance.randrange(len(data)) :]
    elif way == 1:
        begin = chance.randrange(len(data))
        data[begin : begin + 4096] = bytes(len(data[begin : begin + 4096]))
    elif way == 2:
        data += chance.randbytes(100)
    else:
        for _ in range(chance.choice((1, 3, 30))):
            data[chance.randrange(len(data))] = chance.randrange(256)
    path.write_bytes(data)
