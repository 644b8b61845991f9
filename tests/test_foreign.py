"""Files that others wrote: within bounds, or one line, and never a wait."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin.foreign import DEEPEST, is_there, open_file, parse_json, read_bytes, read_json, shown


class Refused(ValueError):
    pass


def refusal(content: bytes) -> str:
    with pytest.raises(Refused) as caught:
        parse_json(content, "x.json", Refused)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "x.json is not JSON: "),
        (b"", "x.json is not JSON: "),
        (b"\xff\xfe{\x00}\x00", "x.json is not UTF-8 (byte 0)"),
        (b'{"a": 1, "b": {"c": 1, "d": 2, "c": 1}}', "x.json: 'c' stands there twice"),
        (b'{"a": 1, "\\u0061": 2}', "x.json: 'a' stands there twice"),
        (b"9" * 5000, "x.json is not JSON: "),
        (b"[" * 200_000 + b"]" * 200_000, "x.json holds more than 112,500 lists and objects"),
        (b"[" + b"{}," * 150_000 + b"{}]", "x.json holds more than 114,062 lists and objects"),
        *(
            (opening * deep + closing * deep, "x.json is more than 64 lists and objects deep")
            for deep in (DEEPEST + 1, 500, 20_000, 40_000)
            for opening, closing in ((b"[", b"]"), (b'{"a":[', b"]}"))
        ),
    ],
    ids=lambda value: str(value[:20]),
)
def test_what_is_refused(content: bytes, message: str) -> None:
    if content.endswith(b"]}"):
        content = content.replace(b"[]", b"[1]")
    assert refusal(content).startswith(message)


def test_depth_is_counted() -> None:
    assert parse_json(b"[" * DEEPEST + b"]" * DEEPEST, "x") is not None
    refusal(b"[" * DEEPEST + b'{"a": 1}' + b"]" * DEEPEST)


def test_a_byte_order_mark_is_no_content() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": 1}', "x") == {"a": 1}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values)
def test_json_is_read_as_json_reads_it(value: Any) -> None:
    text = json.dumps(value)
    assert json.dumps(parse_json(text.encode(), "x")) == text


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        parse_json(content, "x", Refused)
    except Refused as error:
        assert str(error).startswith("x")


@given(values | st.integers(10**300, 10**5000).map(lambda n: [n, n][0]))
def test_values_are_shown_in_a_line(value: Any) -> None:
    text = shown(value)
    assert len(text) <= 80 and "\n" not in text
    assert text.isprintable() or isinstance(value, (dict, list))


def test_what_is_no_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "broken").symlink_to("nothing")
    (tmp_path / "device").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("socket")
    for name, message in (
        ("fifo", "is a FIFO; expected a file"),
        ("folder", "is a folder; expected a file"),
        ("device", "is a device; expected a file"),
        ("socket", "is a socket; expected a file"),
        ("loop", "cannot be read: "),
        ("broken", "cannot be read: "),
        ("nothing", "cannot be read: "),
    ):
        assert is_there(tmp_path / name) == (name != "nothing")
        for read in (read_json, read_bytes, open_file):
            with pytest.raises(ValueError) as caught:
                read(tmp_path / name)
            assert str(caught.value).startswith(f"{tmp_path / name} {message}"), read


def test_size_is_bounded_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "huge.json"
    file.write_bytes(b"[1]")
    assert read_json(file) == [1] and read_bytes(file, 3) == b"[1]"
    with pytest.raises(ValueError, match="has more than 2 bytes"):
        read_bytes(file, 2)
    os.truncate(file, 1 << 40)
    with pytest.raises(Refused, match="has more than 4,194,304 bytes"):
        read_json(file, refuse=Refused)
