"""Prepared once: by any number of processes, and after any kill, the same files."""

from __future__ import annotations

import io
import json
import operator
import os
import pickle
import random
import shutil
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from griffin.train.data import encode, journal, prepare, source
from griffin.train.data.encode import Encoder
from griffin.train.data.example import TextRow
from griffin.train.data.prepare import RunData, prepare_data
from griffin.train.data.workers import _received, in_order
from griffin.train.folder import Claim
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from tests.support.ranks import forking
from tests.train.conftest import MODEL

ROOT = Path(__file__).parents[3]
BEGUN = Claim(known=True, begun=True)


def _rows(count: int) -> list[dict[str, Any]]:
    chance = random.Random(0)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        words = " ".join(chance.choice(("owl", "hen", "jay", "kite")) for _ in range(20))
        ask = {"role": "user", "content": f"{number} {words}?"}
        rows.append(
            {"text": f"{number}: {words}"}
            if number % 3
            else {"messages": [ask, {"role": "assistant", "content": words}]}
        )
    return rows


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Two files of rows, and a folder of texts."""
    rows = [json.dumps(row) + "\n" for row in _rows(2000)]
    (tmp_path / "a.jsonl").write_text("".join(rows[:1500]))
    (tmp_path / "b.jsonl").write_text("".join(rows[1500:]))
    (tmp_path / "texts").mkdir()
    for number in range(20):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"text {number}\n" * 5)
    return tmp_path


def _recipe(folder: Path, **data: Any) -> Recipe:
    tables = [
        {"name": "rows", "path": ".", "include": ["*.jsonl"]},
        {"name": "texts", "path": "texts"},
    ]
    return Recipe.from_dict(
        {
            "model": MODEL,
            "data": {"source": tables, "held_out": 0.1} | data,
            "train": {"steps": 1},
        },
        folder,
    )


def _files(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }


def _prepare(recipe: Recipe, out: Path, **how: Any) -> RunData:
    return prepare_data(recipe, out, Reporter(quiet=True), Claim(False, False), **how)


def _stop_at(number: int) -> Callable[[], None]:
    """Return a check that is interrupted the so many-th time it is asked."""
    calls = count(1)

    def check() -> None:
        if next(calls) == number:
            raise KeyboardInterrupt

    return check


def test_workers_change_nothing(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = _recipe(sources)
    data = _prepare(recipe, sources / "one")
    assert [source.name for source in data.sources] == ["rows", "texts"]
    rows, texts = data.sources
    assert len(rows.train.paths) + len(rows.held_out.paths) == 2000
    assert 150 < len(rows.held_out.paths) < 250 and len(texts.train.paths) < 20
    assert rows.train.counted is not None and texts.train.counted is None
    assert rows.train.paths[0].startswith("a.jsonl:")
    monkeypatch.setattr("griffin.train.data.prepare._SMALL", 0)
    _prepare(recipe, sources / "three", workers=3)
    assert _files(sources / "one") == _files(sources / "three")
    assert sorted(path.name for path in (sources / "one" / "data").iterdir()) == [
        "index.json", "rows", "texts",
    ]  # fmt: skip


def test_a_stopped_preparation_goes_on(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from griffin.train.data import survey

    monkeypatch.setattr("griffin.train.data.source._RECORDS", 250)
    looked: list[object] = []
    for module in (survey, encode):
        understand = module.understand
        monkeypatch.setattr(
            module, "understand", lambda *a, u=understand: (looked.append(a), u(*a))[1]
        )
    recipe, straight = _recipe(sources), sources / "straight"
    _prepare(recipe, straight)
    whole = len(looked)
    for stop_at in (3, 9, 17):
        calls, out = 0, sources / f"stopped-{stop_at}"

        def check(stop_at: int = stop_at) -> None:
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            _prepare(recipe, out, check=check)
        looked.clear()
        _prepare(recipe, out)
        assert _files(out) == _files(straight)
        assert len(looked) < whole, "what was done is not done again"


def test_other_documents_begin_anew(sources: Path) -> None:
    recipe = _recipe(sources)
    with pytest.raises(KeyboardInterrupt):
        _prepare(recipe, sources / "stopped", check=_stop_at(15))
    with (sources / "b.jsonl").open("a") as file:
        file.write('{"text": "one more"}\n')
    _prepare(recipe, sources / "stopped")
    _prepare(recipe, sources / "straight")
    assert _files(sources / "stopped") == _files(sources / "straight")


def test_other_columns_begin_anew(tmp_path: Path) -> None:
    """What was understood of rows by other columns is not gone on with."""
    rows = ({"text": f"t{n} {n * 7}", "prompt": f"p{n}", "completion": f"c{n}"} for n in range(900))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def recipe(*columns: str) -> Recipe:
        source = {"name": "rows", "path": ".", "include": ["*.jsonl"], "columns": list(columns)}
        return _recipe(tmp_path, source=[source])

    with pytest.raises(KeyboardInterrupt):
        _prepare(recipe("text"), tmp_path / "stopped", check=_stop_at(3))
    for name in ("stopped", "straight"):
        _prepare(recipe("prompt", "completion"), tmp_path / name)
    assert _files(tmp_path / "stopped") == _files(tmp_path / "straight")


def test_bad_lines_stop_or_are_listed(sources: Path) -> None:
    with (sources / "b.jsonl").open("a") as file:
        file.write('{"txt": "a"}\n{"messages": []}\n')
    recipe = _recipe(sources)
    with pytest.raises(ValueError, match=r"b\.jsonl:501: columns are .*; --skip-bad leaves"):
        _prepare(recipe, sources / "x")
    assert sum(len(s.train.paths) for s in _prepare(recipe, sources / "x", skip_bad=True).sources)
    listed = (sources / "x" / "data" / "bad_lines.jsonl").read_text().splitlines()
    assert [json.loads(line)["where"] for line in listed] == ["b.jsonl:501", "b.jsonl:502"]
    assert "needs a user message" in json.loads(listed[1])["reason"]
    (sources / "b.jsonl").write_text('{"prompt": "a"}\n')
    with pytest.raises(ValueError, match=r"b\.jsonl:1: a prompt alone is for tune.method"):
        _prepare(recipe, sources / "y", skip_bad=True)


def test_where_nothing_is_left_but_bad_lines_the_first_is_told(tmp_path: Path) -> None:
    """Their list is not where a run has it: there is no run."""
    (tmp_path / "b.jsonl").write_text('{"txt": "a"}\n[1]\n')
    values = {"model": MODEL, "train": {"steps": 1}}
    data = {"source": "files", "root": str(tmp_path), "include": ["*.jsonl"]}
    recipe = Recipe.from_dict(values | {"data": data})
    said = r"0 documents in .* \(left out: 2 bad lines \(the first is b\.jsonl:1: columns are"
    with pytest.raises(ValueError, match=said):
        _prepare(recipe, tmp_path / "run", skip_bad=True)
    (tmp_path / "b.jsonl").write_text('{"txt": "a"}\n')
    with pytest.raises(ValueError, match="1 bad line "):
        _prepare(recipe, tmp_path / "again", skip_bad=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokenizer": {"path": "none.json"}}, r"no tokenizer at .*none\.json"),
        ({"tokenizer": {"path": "bad.json"}}, r"bad\.json is not a readable tokenizer\.json"),
        ({"model": MODEL | {"vocab_size": 264}}, "vocab_size=264 leaves no room for pieces"),
    ],
)
def test_a_vocabulary_that_cannot_be_is_refused_before_documents_are_read(
    changes: dict[str, Any], said: str, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("documents were read")

    monkeypatch.setattr(prepare, "survey", read)
    (sources / "bad.json").write_text("{")
    recipe = Recipe.from_dict(_recipe(sources).to_dict() | changes, sources)
    with pytest.raises(ValueError, match=said):
        _prepare(recipe, sources / "x")


def test_a_source_of_nothing_is_told(sources: Path) -> None:
    for number in range(20):
        (sources / "texts" / f"{number}.txt").write_text("")
    with pytest.raises(ValueError, match="'texts' has no document to train on"):
        _prepare(_recipe(sources), sources / "x")


_double = partial(operator.getitem, {n: 2 * n for n in range(13)})


def test_workers_keep_the_order_and_tell_errors() -> None:
    for workers in (1, 3):
        assert list(in_order(_double, range(12), workers)) == [2 * n for n in range(12)]
        with pytest.raises(KeyError, match="13"):
            list(in_order(_double, range(20), workers))
    with pytest.raises(ValueError, match="ended by itself"):
        list(in_order(os._exit, [3], 2))


def test_a_worker_ends_without_a_word_when_its_parent_does() -> None:
    """Also one that was not sent its task yet, or not all of it."""
    task, item = pickle.dumps(_double), pickle.dumps(4)
    for cut in range(len(task + item)):
        arrived = list(_received(io.BytesIO((task + item)[:cut])))
        assert len(arrived) == (cut >= len(task))
    assert len(list(_received(io.BytesIO(task + item)))) == 2


def _prepare_in_small_blocks(sources: Path, name: str, workers: int, said: Path) -> None:
    """Prepare in a process of its own, whose errors and its workers' go into a file."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    journal._EVERY, source._RECORDS, prepare._SMALL = 0, 100, 0
    _prepare(_recipe(sources), sources / name, workers=workers)


@pytest.mark.thorough
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_moment_it_goes_on(sources: Path, workers: int) -> None:
    """Killed with -9 at random moments, again and again, it ends with the same files."""
    said = sources / "said"

    def begun(name: str) -> BaseProcess:
        given = sources, name, workers, said
        process: Any = forking().Process(target=_prepare_in_small_blocks, args=given)
        process.start()
        return process

    straight = begun("straight")
    chance, log = random.Random(workers), sources / "killed" / "data" / "journal.jsonl"
    moments: list[Callable[[], bool]] = [
        lambda: (sources / "killed" / "data" / "survey" / "journal.jsonl").exists(),
        lambda: log.exists(),
        lambda: log.exists() and log.stat().st_size > 3000,
    ]
    for moment in moments:
        process = begun("killed")
        while not moment() and process.is_alive():
            time.sleep(0.001)
        time.sleep(chance.random() * 0.1)
        process.kill()
        process.join()
    last = begun("killed")
    for process in (last, straight):
        process.join()
        assert process.exitcode == 0
    assert _files(sources / "killed") == _files(sources / "straight")
    assert "Traceback" not in said.read_text()


def test_a_run_whose_data_was_deleted_has_it_again(sources: Path) -> None:
    recipe, out = _recipe(sources), sources / "x"
    _prepare(recipe, out)
    before = _files(out)
    (out / "data" / "index.json").write_bytes(b"\0" * 9)  # as a loss of power may leave it
    with pytest.raises(ValueError, match="delete the run's data folder to encode anew"):
        prepare_data(recipe, out, Reporter(quiet=True), BEGUN)
    shutil.rmtree(out / "data")
    with (sources / "b.jsonl").open("a") as file:
        file.write('{"text": "zzz zzz"}\n' * 50)
    tokenizer = (out / "tokenizer.json").read_bytes()
    data = prepare_data(recipe, out, Reporter(quiet=True), BEGUN)
    assert sum(len(source.train.paths) for source in data.sources) > 1800
    assert (out / "tokenizer.json").read_bytes() == tokenizer, "the weights know no other"
    assert _files(out).keys() == before.keys()


def test_lines_that_were_mended_are_listed_no_more(sources: Path) -> None:
    whole = (sources / "b.jsonl").read_text()

    (sources / "b.jsonl").write_text(f"{whole}no JSON\n")
    recipe, out = _recipe(sources), sources / "x"
    with pytest.raises(KeyboardInterrupt):
        _prepare(recipe, out, skip_bad=True, check=_stop_at(15))
    (sources / "b.jsonl").write_text(whole)
    _prepare(recipe, out, skip_bad=True)
    assert not (out / "data" / "bad_lines.jsonl").exists()


def test_nothing_to_validate_on_is_told_before_training(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a chat template has no system message, and every conversation that is held out
    begins with one."""
    whole = _prepare(_recipe(sources), sources / "x")
    held = {str(name) for source in whole.sources for name in source.held_out.paths}
    understand = encode.understand

    def named(block: Any, most: int, reads: Any) -> Any:
        found = understand(block, most, reads)
        wrong = TextRow("refused")
        found.documents = [
            each._replace(example=wrong) if each.name in held else each for each in found.documents
        ]
        return found

    def refuse(self: Encoder, example: Any) -> Any:
        if example == TextRow("refused"):
            raise ValueError("no system message")
        return encoded(self, example)

    encoded = Encoder.encode
    monkeypatch.setattr(encode, "understand", named)
    monkeypatch.setattr(Encoder, "encode", refuse)
    with pytest.raises(ValueError, match=r"none of the held-out .*not_encoded\.jsonl says why"):
        _prepare(_recipe(sources), sources / "y", skip_bad=True)
    reasons = (sources / "y" / "data" / "not_encoded.jsonl").read_text()
    assert reasons.count("no system message") == len(held)


def test_ids_beyond_the_vocabulary_name_their_file(sources: Path) -> None:
    recipe, out = _recipe(sources), sources / "x"
    _prepare(recipe, out)
    ids = out / "data" / "rows" / "held_out" / "ids.bin"
    ids.write_bytes(b"\xff" * ids.stat().st_size)
    with pytest.raises(ValueError, match=r"held_out/ids\.bin is damaged: .* 65535, .* delete the"):
        prepare_data(recipe, out, Reporter(quiet=True), BEGUN)
