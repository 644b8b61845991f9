"""Files that know whether they are whole."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from griffin.sessions import StateTorn
from griffin.sessions.disk import write_durably
from griffin.sessions.tensor_file import Spec, TensorFile, memory_of, pack

TENSORS = {
    "half": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "float": torch.tensor([[1.5, -2.0]]),
    "wide": torch.tensor([1e300], dtype=torch.float64),
    "ids": torch.tensor([1, -2, 3], dtype=torch.int32),
    "strided": torch.arange(12.0).reshape(3, 4).t()[::2],
    "scalar": torch.tensor(7),
}
METADATA = {"format": "test", "text": 'quoted "digest":"' + "0" * 32 + '" ü \\'}


def write(path: Path) -> bytes:
    packed = pack(TENSORS, METADATA)
    write_durably(path, packed.chunks)
    assert path.stat().st_size == packed.nbytes
    return path.read_bytes()


def read_all(path: Path) -> dict[str, torch.Tensor]:
    with TensorFile(path) as file:
        return {name: file.read(name) for name in file.specs}


def test_round_trip(tmp_path):
    write(tmp_path / "f")
    with TensorFile(tmp_path / "f") as file:
        assert file.metadata == METADATA and file.digest == pack(TENSORS, METADATA).digest
        assert file.specs == {name: Spec(t.dtype, tuple(t.shape)) for name, t in TENSORS.items()}
    found = read_all(tmp_path / "f")
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


def test_other_libraries_read_it(tmp_path):
    write(tmp_path / "f")
    found = safetensors.torch.load_file(tmp_path / "f")
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    with safe_open(tmp_path / "f", "pt") as file:
        assert METADATA.items() <= file.metadata().items()


def test_pieces_of_memory(tmp_path):
    write(tmp_path / "f")
    room = torch.zeros(2, 5, dtype=torch.bfloat16)
    with TensorFile(tmp_path / "f") as file:
        file.read_into("half", [memory_of(row[1:4]) for row in room])
        with pytest.raises(ValueError, match="12 bytes, the room for it 20"):
            file.read_into("half", [memory_of(room)])
    assert torch.equal(room[:, 1:4], TENSORS["half"]) and room[:, [0, 4]].abs().sum() == 0


def test_every_flipped_bit_and_every_cut_is_seen(tmp_path):
    path = tmp_path / "f"
    whole = write(path)
    for place in range(len(whole)):
        for bit in (1, 2, 32) if place % 3 else (4, 64, 128):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            with pytest.raises(StateTorn, match=str(path)):
                read_all(path)
        path.write_bytes(whole[:place])
        with pytest.raises(StateTorn, match=str(path)):
            read_all(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(StateTorn):
        read_all(path)


def test_files_of_others(tmp_path):
    path = tmp_path / "f"
    safetensors.torch.save_file({"a": TENSORS["float"]}, path, {"format": "pt"})
    with pytest.raises(StateTorn, match="'pt', without checksums"):
        TensorFile(path)
    safetensors.torch.save_file({"a": TENSORS["float"]}, path)
    with pytest.raises(StateTorn, match="metadata"):
        TensorFile(path)
    with pytest.raises(StateTorn, match="missing"):
        TensorFile(tmp_path / "g")
    with pytest.raises(StateTorn, match=str(tmp_path)):
        TensorFile(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StateTorn, match="pipe"):  # and does not wait for somebody to write into it
        TensorFile(tmp_path / "pipe")


def framed(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


META = {"crc32": '{"a": 0}', "digest": "0" * 32}
A = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{}",
        b"[" * 60_000,
        b"1" * 5_000,
        b"null",
        b'{"__metadata__": 3}',
        b'{"__metadata__": {"digest": 3, "crc32": 4}}',
        b'{"__metadata__": {"digest": "\\ud800", "crc32": "{}"}}',
        *(json.dumps({"__metadata__": META, "a": {**A, key: value}}).encode() for key, value in [
            ("dtype", "F8"), ("dtype", None), ("shape", "1"), ("shape", [-1]), ("shape", [True]),
            ("shape", [1e9]), ("shape", [2**62, 2**62]), ("data_offsets", [0]),
            ("data_offsets", [4, 0]),
            ("data_offsets", [-4, 0]), ("data_offsets", ["0", "4"]), ("data_offsets", None),
            ("data_offsets", [0, 1 << 70]),
        ]),
        *(json.dumps({"__metadata__": {**META, "crc32": crc}, "a": A}).encode() for crc in [
            "", "3", "[]", '{"b": 0}', "[" * 60_000, '{"a": "x"}', '{"a": NaN}',
        ]),
    ],
)  # fmt: skip
def test_headers_that_lie(tmp_path, header):
    """Each once as it is, and once with the digest that belongs to it."""
    path = tmp_path / "f"
    digest = hashlib.blake2b(header, digest_size=16).hexdigest().encode()
    for text in (header, header.replace(b'"digest": "' + b"0" * 32, b'"digest":"' + digest)):
        path.write_bytes(framed(text, b"\0\0\0\0"))
        with pytest.raises(StateTorn, match=str(path)):
            read_all(path)


def test_tensors_that_share_their_bytes(tmp_path):
    """The sizes add up, and the second tensor's bytes are nobody's."""
    meta = {"crc32": json.dumps({"a": 558161692, "b": 558161692}), "digest": "0" * 32}
    header = (
        json.dumps({"__metadata__": meta, "a": A, "b": A})
        .replace('"digest": ', '"digest":')
        .encode()
    )
    digest = hashlib.blake2b(header, digest_size=16).hexdigest()
    (tmp_path / "f").write_bytes(framed(header.replace(b"0" * 32, digest.encode()), bytes(8)))
    with pytest.raises(StateTorn, match="overlap"):
        read_all(tmp_path / "f")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("whole") / "f"
    return path, write(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_random_bytes_are_never_anything_but_torn(whole, data):
    path, content = whole
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, len(content)))
    damaged = content[:start] + data.draw(st.binary(max_size=80)) + content[stop:]
    path.write_bytes(damaged)
    if damaged != content:
        with pytest.raises(StateTorn):
            read_all(path)
