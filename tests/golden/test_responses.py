"""Responses of a version whose index had no items (see make_responses.py): it is brought up."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from griffin.sessions import Store, UnknownItem, schema

HERE = Path(__file__).parent
EXPECTED = json.loads((HERE / "responses" / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(HERE / "responses", tmp_path / "store")
    (tmp_path / "store").chmod(0o700)
    return tmp_path / "store"


def rows(folder: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(folder / "index.sqlite")) as index:
        return index.execute(query).fetchall()


def version(folder: Path) -> int:
    return rows(folder, "PRAGMA user_version")[0][0]


@pytest.mark.parametrize("network", [False, True])
def test_an_index_is_brought_up(folder, network):
    assert version(folder) == 1
    before = rows(folder, "SELECT * FROM turn")
    for _ in range(2):  # and then it is as any other
        with Store(folder, network=network) as whole:
            store = whole.within("responses")
            assert whole.check() == ()
            assert {info.name for info in store.list()} == {one["id"] for one in EXPECTED}
            for response in EXPECTED:
                assert store.items(response["id"], side="output") == response["output"]
                assert store.items(response["id"], side="input") == []
            ids = {item["id"] for one in EXPECTED for item in one["output"]}
            assert set(whole.within("", ["responses"]).find_items(ids)) == ids
        assert version(folder) == schema.SCHEMA_VERSION == 2
        assert rows(folder, "SELECT * FROM turn") == before


def test_it_goes_with_its_response(folder):
    with Store(folder) as whole:
        store, first, second = whole.within("responses"), EXPECTED[0], EXPECTED[1]
        store.delete(first["id"])
        item = first["output"][0]["id"]
        assert store.find_items([item]) == {}
        with pytest.raises(UnknownItem):
            store.item(second["id"], item)  # what went on from it has only its own
        assert store.items(second["id"]) == second["output"]


def test_all_of_it_or_nothing(folder, monkeypatch):
    """A process that ends in the middle leaves an index that the earlier version opens, too."""

    def fail(index):
        raise OSError("killed")

    monkeypatch.setattr(schema, "_add_items", fail)
    with pytest.raises(OSError, match="killed"):
        Store(folder)
    assert version(folder) == 1
    monkeypatch.undo()
    with Store(folder) as whole:
        assert whole.within("responses").items(EXPECTED[0]["id"]) == EXPECTED[0]["output"]


@pytest.mark.parametrize(
    "stats",
    [
        *("[1]", "{", "{}", "[" * 100_000, '{"response": 1}', '{"response": {"id": "x"}}', b"\xff"),
        *(None, 5, '{"response": {"id": "NAME", "output": 3}}'),
        *(f'{{"response": {{"id": "NAME", "output": [{one}]}}}}' for one in ("1", '{"id": 2}')),
        '{"response": {"id": "NAME", "output": [{"id": "\\ud800"}]}}',
    ],
)
def test_what_is_damaged_costs_the_others_nothing(folder, stats):
    hurt, *whole = EXPECTED
    if isinstance(stats, str):
        stats = stats.replace("NAME", hurt["id"])
    with closing(sqlite3.connect(folder / "index.sqlite", isolation_level=None)) as index:
        where = "WHERE id = (SELECT head FROM session WHERE name = ?)"
        stats = "" if stats is None else stats
        index.execute(f"UPDATE turn SET stats = ? {where}", (stats, hurt["id"]))
    with Store(folder) as opened:
        store = opened.within("responses")
        assert store.items(hurt["id"]) == []
        for response in whole:
            assert store.items(response["id"]) == response["output"]
