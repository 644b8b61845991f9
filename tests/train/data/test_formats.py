"""What a damaged or odd file comes to: docs/training_data.md has the table."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from griffin.train.data.document import Understood, understand
from griffin.train.data.example import words_of
from griffin.train.data.files import MOST_LINE, cut_text
from griffin.train.data.source import blocks, open_sources
from griffin.train.recipe import DataRecipe, SourceRecipe

TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def read(file: Path, **table: Any) -> Understood:
    """Return what is in a file, all its blocks together."""
    source = SourceRecipe(name="x", path=str(file), **table)
    found = Understood()
    for block in blocks(open_sources(DataRecipe(source=(source,)), Path()), 1_000_000):
        part = understand(block, 1_000_000)
        found.documents += part.documents
        found.bad += part.bad
        found.refused = found.refused or part.refused
        found.left.update(part.left)
    return found


def _lines(folder: Path, *lines: bytes, name: str = "x.jsonl") -> Understood:
    (folder / name).write_bytes(b"".join(lines))
    return read(folder / name)


def _texts(found: Understood) -> list[str]:
    return [words_of(document.example) for document in found.documents]


def test_marks_line_ends_and_blank_lines(tmp_path: Path) -> None:
    found = _lines(
        tmp_path,
        b'\xef\xbb\xbf{"text": "a"}\r\n',
        b"\n  \r\n",
        b'\xef\xbb\xbf{"text": "b\\r\\n\\u0000<eos>"}\n',
        b"\xef\xbb\xbf\n",
    )
    assert _texts(found) == ["a", "b\r\n\0<eos>"] and not found.bad
    assert [document.name for document in found.documents] == ["x.jsonl:1", "x.jsonl:4"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\0\0\0\0\n", "is not JSON"),
        (b'{"text": "a\0"}\n', "is not JSON"),
        (b'{"text": "a", "text": "b"}\n', "'text' stands there twice"),
        (b'{"text": "a", "x": NaN}\n', "NaN is no number"),
        (b'{"text": "a", "x": -Infinity}\n', "-Infinity is no number"),
        (b'{"text": "\xff"}\n', "is not UTF-8"),
        ('{"text": "a"}\n'.encode("utf-16"), "is not UTF-8"),
        (b'{"text": "a"\n', "is not JSON"),
        (b'{"text": "a"} {"text": "b"}\n', "is not JSON"),
        (b'{"text": "a", "x": ' + b"[" * 900 + b"]" * 900 + b"}\n", "lists and objects deep"),
        (b"[" * 300_000 + b"\n", "lists and objects"),
        (b'{"text": "a", "x": 1' + b"0" * 5000 + b"}\n", "is not JSON"),
        (b'{"text": "\\ud800"}\n', "lone surrogate"),
        (b'[{"text": "a"}]\n', "a row is an object"),
        (b'"text"\n', "a row is an object"),
    ],
)
def test_a_bad_line_is_told_and_the_others_are_read(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    found = _lines(tmp_path, b'{"text": "a"}\n', line, b'{"text": "c"}\n')
    [why] = [reason for where, reason in found.bad if where == "x.jsonl:2"]
    assert reason in why and len(why) < 300 and "\n" not in why
    assert _texts(found) == ["a", "c"] or line.startswith('{"text'.encode("utf-16")[:3])


def test_a_line_too_long_is_passed_over_unread(tmp_path: Path) -> None:
    long = b'{"text": "' + b"x" * MOST_LINE + b'"}\n'
    found = _lines(tmp_path, long, b'{"text": "b"}\n')
    assert found.bad == [
        ("x.jsonl:1", f"the line has {len(long):,} bytes; at most {MOST_LINE:,} are read")
    ]
    assert _texts(found) == ["b"]


def test_gzip(tmp_path: Path) -> None:
    rows = b"".join(b'{"text": "row %d"}\n' % n for n in range(2000))
    packed = gzip.compress(rows)
    assert len(_lines(tmp_path, packed, name="x.jsonl.gz").documents) == 2000
    torn = _lines(tmp_path, packed[: len(packed) // 2], name="x.jsonl.gz")
    assert 0 < len(torn.documents) < 2000
    [(where, why)] = torn.bad
    assert where == f"x.jsonl.gz:{len(torn.documents) + 1}" and "the file is torn here" in why
    assert "torn" in _lines(tmp_path, rows, name="x.jsonl.gz").bad[0][1]


def test_what_is_left_out_and_what_is_for_tuning(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"text": ""},
        {"messages": TALK[:1]},
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"messages": TALK, "source": "web"},
    ]
    found = _lines(tmp_path, *(json.dumps(row).encode() + b"\n" for row in rows))
    assert found.left == {"empty": 1, "without an answer to learn": 1} and not found.bad
    assert found.refused is not None and found.refused[0] == "x.jsonl:3"
    assert "chosen and rejected is for tune.method 'dpo'" in found.refused[1]
    assert len(found.documents) == 1
    assert not _lines(tmp_path).documents


def test_rows_may_be_of_several_shapes(tmp_path: Path) -> None:
    rows: list[Any] = [{"text": "a"}, {"messages": TALK}, {"prompt": "a", "completion": "b"}]
    found = _lines(tmp_path, *(json.dumps(row).encode() + b"\n" for row in rows))
    assert len(found.documents) == 3 and not found.bad


def test_a_long_text_is_cut_into_documents(tmp_path: Path) -> None:
    text = "".join(f"line {n}\n" for n in range(200_000))
    found = _lines(tmp_path, json.dumps({"text": text}).encode())
    assert "".join(_texts(found)) == text and found.documents[1].name == "x.jsonl:1#1"


def test_the_ending_says_the_format(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text('{"text": "a"}')
    assert _texts(read(tmp_path / "x.txt")) == ['{"text": "a"}']
    assert _texts(read(tmp_path / "x.txt", format="jsonl")) == ["a"]
    (tmp_path / "x.json").write_text('{"text": "a"}')
    assert _texts(read(tmp_path / "x.json")) == ["a"]


def test_tables_need_their_library(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        with pytest.raises(ValueError, match=r"need pyarrow: pip install 'griffin-lm\[data\]'"):
            read(tmp_path / "x.parquet")
    else:
        assert "x.parquet:1" in read(tmp_path / "x.parquet").bad[0]


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write(rows: list[dict[str, Any]]) -> Understood:
        parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "x.parquet")
        return read(tmp_path / "x.parquet")

    found = write([{"id": n, "text": f"row {n}"} for n in range(600)])
    assert _texts(found) == [f"row {n}" for n in range(600)] and not found.bad
    assert found.documents[-1].name == "x.parquet:600"
    talk = write([{"messages": TALK, "text": None}, {"messages": None, "text": "a"}])
    assert len(talk.documents) == 2 and not talk.bad
    assert write([{"text": 3}]).bad == [("x.parquet:1", "text is text, not 3")]
    assert "columns are ['words']" in write([{"words": "a"}]).bad[0][1]
    whole = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(whole[: len(whole) // 2])
    assert "the file cannot be read" in read(tmp_path / "x.parquet").bad[0][1]


def test_a_folder_of_a_hub_set(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    rows = [{"messages": TALK, "id": n} for n in range(300)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = SourceRecipe(name="x", hub=str(tmp_path))
    [*parts] = blocks(open_sources(DataRecipe(source=(source,)), Path()), 1000)
    found = [understand(part, 1000) for part in parts]
    assert sum(len(part.documents) for part in found) == 300
    with pytest.raises(ValueError, match="cannot be loaded"):
        source = SourceRecipe(name="x", hub=str(tmp_path), split="tset")
        list(blocks(open_sources(DataRecipe(source=(source,)), Path()), 1000))


@pytest.mark.parametrize("text", ["🦉", "é", "🦉🦉", "aé🦉"])
def test_no_cut_is_within_a_letter(text: str) -> None:
    for most in range(1, 9):
        pieces = list(cut_text(io.BytesIO(text.encode()), most))
        assert "".join(piece.decode() for piece in pieces) == text


def test_a_folder_has_every_kind_by_default_in_any_case(tmp_path: Path) -> None:
    row = b'{"text": "a"}\n'
    for name in ("a.jsonl", "b.ndjson", "c.json", "d.JSONL", "deep/e.Json", "f.txt", "g.TXT"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(row)
    for name in ("h.jsonl.gz", "i.ndjson.gz", "j.json.gz"):
        (tmp_path / name).write_bytes(gzip.compress(row))
    for name in ("notes.md", "README", ".git/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert len(read(tmp_path).documents) == 10
    (found,) = open_sources(
        DataRecipe(source=(SourceRecipe(name="x", path=str(tmp_path)),)), Path()
    )
    assert found.passed_over == (
        "x: 2 files match no pattern of data.source.include and are passed over, such as README"
    )


@pytest.mark.parametrize("name", ["x.csv", "x.TSV", "x.jsonl.zst", "x.pq", "x.xlsx"])
def test_tables_and_archives_are_no_texts_unless_it_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"as one plain text.*\.jsonl .*\.parquet"):
        read(tmp_path / name)
    assert _texts(read(tmp_path / name, format="text")) == ["a,b\n1,2\n"]
