"""What is written is what is read, in whatever pieces it came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from griffin.train.data.encode import Encoded, Encoder
from griffin.train.data.example import read_example
from griffin.train.data.store import DocumentNames, StoreWriter, open_store
from tests.train.data.test_bpe import OPENED

ROWS = [
    {"text": "self.x\n"},
    {"prompt": "é <eos>", "completion": " def"},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    {"text": "é"},
]


def _write(folder: Path, documents: list[Encoded], each: int) -> dict[str, Any]:
    writer = StoreWriter("x", "uint16")
    (folder / "x").mkdir(parents=True)
    for start in range(0, len(documents) + 1, each):
        part = documents[start : start + each]
        named = [(f"né:{start + n}", document) for n, document in enumerate(part)]
        for name, content in writer.add(named).items():
            with (folder / name).open("ab") as file:
                file.write(content)
        writer = StoreWriter("x", "uint16", writer.notes)
    return writer.notes


def test_store_on_disk(tmp_path: Path) -> None:
    documents = [Encoder(OPENED).encode(read_example(row)) for row in ROWS]
    contents = set()
    for each in (1, 2, 5):
        folder = tmp_path / str(each)
        notes = _write(folder, documents, each)
        contents.add(tuple(p.read_bytes() for p in sorted((folder / "x").iterdir())))
        store = open_store(folder / "x", "uint16", notes)
        assert list(store.paths) == ["né:0", "né:1", "né:2", "né:3"] and store.paths[1:3]
        assert store.num_bytes == 7 + 4 + 1 + 2
        for place, document in enumerate(documents):
            back = store.encoded(place)
            assert back.ids.tolist() == document.ids.tolist()
            assert back.counted.tolist() == document.counted.tolist()
    assert len(contents) == 1
    assert store.counted is not None and len(store.counted) == 4
    notes = _write(tmp_path / "whole", documents[:1], 1)
    assert open_store(tmp_path / "whole" / "x", "uint16", notes).counted is None


def test_torn_stores_are_told(tmp_path: Path) -> None:
    notes = _write(tmp_path, [Encoded.whole(np.arange(5))], 1)
    with (tmp_path / "x" / "ids.bin").open("ab") as file:
        file.write(b"xx")
    with pytest.raises(ValueError, match="holds 6 tokens of 1 documents, its index says 5 of 1"):
        open_store(tmp_path / "x", "uint16", notes)
    (tmp_path / "x" / "ends.bin").unlink()
    with pytest.raises(ValueError, match="no readable token store"):
        open_store(tmp_path / "x", "uint16", notes)


def test_names() -> None:
    names = DocumentNames(np.frombuffer("aébc".encode(), np.uint8), np.array([1, 3, 3, 5]))
    assert list(names) == ["a", "é", "", "bc"] and names[-1] == "bc" and names.index("é") == 1
    with pytest.raises(IndexError):
        names[4]
