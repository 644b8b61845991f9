"""Torch archives whose table tells two stories, zarr arrays that were never stored: one line each,
at once."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import griffin.checkpoints as checkpoints
from griffin.checkpoints import CheckpointError
from griffin.checkpoints.deepmind_torch import TorchSource
from tests.support.toy_checkpoints import DEEPMIND, UNTOLD
from tests.support.toy_models import make_model
from tools.fuzz import archives as fuzz

LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"


def refusal(path: Path, run: Callable[[], object]) -> str:
    begin = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        run()
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert time.monotonic() - begin < 20
    return str(caught.value)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive as torch.save writes it."""
    values = {"a": torch.arange(10.0), "b": torch.ones(3, 4).bfloat16(), "none": torch.zeros(0)}
    torch.save(values, tmp_path / "x.pt")
    return tmp_path / "x.pt"


def rezip(path: Path, change: Callable[[zipfile.ZipInfo, bytes], tuple[int, bytes] | None]) -> None:
    """Write an archive anew; `change` gives a record's method and bytes, or None: without it."""
    with zipfile.ZipFile(path) as old:
        records = [(info, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w") as new:
        for info, data in records:
            if (told := change(info, data)) is not None:
                new.writestr(zipfile.ZipInfo(info.filename), told[1], told[0])


def patched(path: Path, signature: bytes, offset: int, new: bytes, name: bytes = b"data/0") -> None:
    """Overwrite a field of a record's local or central header."""
    data, at = bytearray(path.read_bytes()), 0
    size = 30 if signature == LOCAL else 46
    while (at := data.index(signature, at)) >= 0:
        if data[at + size : at + size + 200].split(b"/", 1)[-1].startswith(name):
            break
        at += 4
    data[at + offset : at + offset + len(new)] = new
    path.write_bytes(data)


def only(name: str, change: Callable[[bytes], bytes]) -> Any:
    return lambda info, data: (0, change(data) if info.filename.endswith(name) else data)


RECORDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "short": (lambda p: rezip(p, only("data/0", lambda d: d[:-4])), "takes 40 bytes, and there"),
    "empty": (lambda p: rezip(p, only("data/0", lambda d: b"")), "a record of 0 bytes"),
    "missing": (
        lambda p: rezip(p, lambda i, d: None if i.filename.endswith("data/1") else (0, d)),
        "no record",
    ),
    "deflated": (lambda p: rezip(p, lambda i, d: (8, d)), "is compressed"),
    "one deflated": (
        lambda p: rezip(p, lambda i, d: (8 if i.filename.endswith("data/0") else 0, d)),
        "data/0 is compressed",
    ),
    "twice": (lambda p: _twice(p), "is there twice"),
    "no pickle": (
        lambda p: rezip(p, lambda i, d: None if i.filename.endswith("pkl") else (0, d)),
        "with 0 records FOLDER/data.pkl",
    ),
    "of another machine": (
        lambda p: rezip(p, only("byteorder", lambda d: b"big")),
        "another kind of machine",
    ),
    "another size before it": (lambda p: patched(p, LOCAL, 18, b"\x08\0\0\0\x08\0\0\0"), "another"),
    "another method before it": (lambda p: patched(p, LOCAL, 8, b"\x08\0"), "another before"),
    "another name before it": (lambda p: patched(p, LOCAL, 32, b"x"), "another before its bytes"),
    "no header before it": (lambda p: patched(p, LOCAL, 0, b"ABCD"), "another before its bytes"),
    "encrypted": (lambda p: patched(p, CENTRAL, 8, b"\x01\x08"), "encrypted"),
    "larger than the file": (
        lambda p: patched(p, CENTRAL, 20, b"\xff\xff\xff\x7f\xff\xff\xff\x7f"),
        "data/0",
    ),
    "sizes that differ": (lambda p: patched(p, CENTRAL, 24, b"\x27\0\0\0"), "compressed"),
    "an offset into another": (lambda p: patched(p, CENTRAL, 42, b"\x08\0\0\0"), "begin"),
    "an offset outside": (lambda p: patched(p, CENTRAL, 42, b"\0\0\0\x7f"), "x.pt"),
    "bytes before the first": (lambda p: p.write_bytes(b"x" * 64 + p.read_bytes()), "x.pt"),
}


def _twice(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as new, pytest.warns(UserWarning):
        new.writestr(new.namelist()[4], b"\1" * 40)


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_that_is_not_what_the_table_says(archive: Path, name: str) -> None:
    change, message = RECORDS[name]
    change(archive)
    assert message in refusal(archive, lambda: TorchSource(archive))


def test_what_torch_writes_is_read(archive: Path, tmp_path: Path) -> None:
    """The same bits as torch.load without a mapping; also rewritten, unaligned, by another zip."""
    base = torch.arange(24.0).reshape(4, 6)
    torch.save({"whole": base, "view": base[1:, ::2], "turned": base.T}, tmp_path / "y.pt")
    torch.save({"w": torch.arange(6.0)}, tmp_path / "z.pt", _use_new_zipfile_serialization=False)
    rezipped = tmp_path / "r.pt"
    shutil.copy(archive, rezipped)
    rezip(rezipped, lambda info, data: (0, data))
    for path in (archive, tmp_path / "y.pt", tmp_path / "z.pt", rezipped):
        expected, source = torch.load(path, weights_only=True), TorchSource(path)
        assert source.names() == list(expected)
        for name, t in expected.items():
            assert torch.equal(source.read(name), t) and source.dtype(name) == t.dtype


class Outside:
    """Pickles as a tensor that reaches past its storage."""

    def __init__(self, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.place = offset, size, stride

    def __reduce__(self) -> Any:
        rebuild = torch._utils._rebuild_tensor_v2  # pyright: ignore[reportAttributeAccessIssue]
        storage = torch.arange(4.0).storage()
        return rebuild, (storage, *self.place, False, {})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize(
    "place",
    [
        *((0, (5,), (1,)), (1, (4,), (1,)), (0, (2, 3), (3, 1)), (9, (1,), (1,))),
        *((-1, (1,), (1,)), (0, (-1,), (1,)), (0, (2,), (-1,)), (2**62, (4,), (1,))),
        *((0, (2**40,), (0,)), (0, (2**31, 2**31), (0, 0)), (0, (2**40,), (1,))),
    ],
)
def test_a_tensor_outside_its_storage(tmp_path: Path, place: Any, as_zip: bool) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": Outside(*place)}, path, _use_new_zipfile_serialization=as_zip)
    refusal(path, lambda: TorchSource(path))


def test_convert_writes_nothing_of_a_damaged_archive(tmp_path: Path) -> None:
    checkpoints.save_model(make_model(DEEPMIND), tmp_path / "m")
    good = tmp_path / "good.pt"
    checkpoints.convert(tmp_path / "m", good, "deepmind-torch")
    for number, change in enumerate(
        (only("data/3", lambda d: d[:-2]), lambda i, d: (8, d), only("data/0", lambda d: b""))
    ):
        bad = tmp_path / f"bad{number}.pt"
        shutil.copy(good, bad)
        rezip(bad, change)
        out = tmp_path / f"out{number}"
        refusal(bad, lambda: checkpoints.convert(bad, out, config=UNTOLD))  # noqa: B023
        assert not out.exists()


def test_a_pipe_is_no_archive(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.pt")
    refusal(tmp_path, lambda: checkpoints.open(tmp_path, config=UNTOLD))


# zarr


@pytest.fixture(scope="module")
def orbax(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as zarr arrays in folders, as Orbax lays it out without a database."""
    pytest.importorskip("tensorstore")
    folder = tmp_path_factory.mktemp("zarr")
    checkpoints.save_model(make_model(DEEPMIND), folder / "m")
    checkpoints.convert(folder / "m", folder / "flax", "deepmind-flax")
    checkpoint = checkpoints.open(folder / "flax")
    source = checkpoint._source
    for name in source.names():
        values = source.read(name)
        array = folder / "arrays" / name
        array.mkdir(parents=True)
        fields = {
            "shape": list(values.shape),
            "chunks": list(values.shape),
            "dtype": "<f4",
            "compressor": None,
            "fill_value": None,
            "order": "C",
            "filters": None,
            "zarr_format": 2,
        }
        (array / ".zarray").write_text(json.dumps(fields))
        (array / ".".join("0" * values.dim())).write_bytes(values.float().numpy().tobytes())
    return folder / "arrays"


@pytest.fixture
def arrays(orbax: Path, tmp_path: Path) -> Path:
    shutil.copytree(orbax, tmp_path / "arrays")
    return tmp_path / "arrays"


NORM = "final_norm.scale"


def described(folder: Path, name: str = NORM, **changes: Any) -> None:
    file = folder / name / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


EMBEDDING = "embedder.input_embedding"
ZARR: dict[str, Callable[[Path], object]] = {
    "a shape of petabytes": lambda p: described(p, EMBEDDING, shape=[10**15, 48]),
    "a shape of petabytes in one chunk": lambda p: described(
        p, EMBEDDING, shape=[10**15, 48], chunks=[10**15, 48]
    ),
    "a shape beyond int64": lambda p: described(p, shape=[2**70]),
    "chunks of 10^10": lambda p: described(p, chunks=[10**10]),
    "chunks beyond int64": lambda p: described(p, EMBEDDING, chunks=[10**15, 10**15]),
    "chunks of nothing": lambda p: described(p, chunks=[0]),
    "chunks below nothing": lambda p: described(p, chunks=[-48]),
    "chunks of more dimensions": lambda p: described(p, chunks=[48, 1]),
    "a negative shape": lambda p: described(p, shape=[-48]),
    "a shape of truth": lambda p: described(p, shape=[True]),
    "a shape of words": lambda p: described(p, shape="48"),
    "a shape that is a number": lambda p: described(p, shape=48),
    "another type": lambda p: described(p, dtype="<i4"),
    "a list of types": lambda p: described(p, dtype=["<f4"]),
    "a type of fields": lambda p: described(p, dtype=[["a", "<f4"]]),
    "another codec": lambda p: described(p, compressor={"id": "abacus"}),
    "a codec of another type": lambda p: described(p, compressor=3),
    "a codec that was not used": lambda p: described(p, compressor={"id": "zstd", "level": 1}),
    "a filter": lambda p: described(p, filters=[{"id": "delta"}]),
    "another order": lambda p: described(p, order="Z"),
    "no JSON": lambda p: (p / NORM / ".zarray").write_text("{"),
    "deep JSON": lambda p: (p / NORM / ".zarray").write_text("[" * 200_000),
    "a list": lambda p: (p / NORM / ".zarray").write_text("[1]"),
    "a long description": lambda p: (p / NORM / ".zarray").write_text(" " * (2 << 20)),
    "a description that is a pipe": lambda p: replaced(p / NORM / ".zarray", os.mkfifo),
    "a description that is a folder": lambda p: replaced(p / NORM / ".zarray", Path.mkdir),
    "a chunk that is a pipe": lambda p: replaced(p / NORM / "0", os.mkfifo),
    "a chunk that is a folder": lambda p: replaced(p / NORM / "0", Path.mkdir),
    "a chunk that is a link to nowhere": lambda p: replaced(
        p / NORM / "0", lambda at: at.symlink_to("nowhere")
    ),
    "a chunk that is a link to a device": lambda p: replaced(
        p / NORM / "0", lambda at: at.symlink_to("/dev/zero")
    ),
    "a chunk that is missing": lambda p: (p / NORM / "0").unlink(),
    "a chunk that is short": lambda p: (p / NORM / "0").write_bytes(b"1234"),
    "a chunk that is long": lambda p: (p / NORM / "0").write_bytes(b"1234" * 1000),
}


@pytest.mark.parametrize("name", ZARR)
def test_an_array_that_was_never_stored(arrays: Path, tmp_path: Path, name: str) -> None:
    ZARR[name](arrays)
    text = refusal(arrays, lambda: checkpoints.convert(arrays, tmp_path / "out", config=UNTOLD))
    assert len(text) < 1000
    assert not (tmp_path / "out").exists()


def test_arrays_and_links_to_them_are_read(arrays: Path, tmp_path: Path) -> None:
    """A download's cache holds links to its files."""
    expected = checkpoints.load_model(arrays, config=UNTOLD).state_dict()
    shutil.move(arrays / NORM / "0", tmp_path / "elsewhere")
    (arrays / NORM / "0").symlink_to(tmp_path / "elsewhere")
    found = checkpoints.load_model(arrays, config=UNTOLD).state_dict()
    assert all(torch.equal(found[name], t) for name, t in expected.items())


def test_a_pipe_within_a_database(orbax: Path, tmp_path: Path) -> None:
    folder = tmp_path / "flax"
    shutil.copytree(orbax.parent / "flax", folder)
    data = max((folder / "d").iterdir(), key=lambda file: file.stat().st_size)
    replaced(data, os.mkfifo)
    refusal(folder, lambda: checkpoints.open(folder, config=UNTOLD))


def test_a_database_without_the_chunks_it_describes(orbax: Path, tmp_path: Path) -> None:
    folder = tmp_path / "flax"
    shutil.copytree(orbax.parent / "flax", folder)
    ts = pytest.importorskip("tensorstore")
    base = {"driver": "ocdbt", "base": f"{folder.absolute().as_uri()}/"}
    store = ts.KvStore.open(base).result()
    text = json.loads(store.read(f"{EMBEDDING}/.zarray").result().value)
    for changes in ({"shape": [10**8, 48], "chunks": [89, 48]}, {"chunks": [1, 1]}):
        store.write(f"{EMBEDDING}/.zarray", json.dumps(text | changes)).result()
        refusal(folder, lambda: checkpoints.open(folder, config=UNTOLD))


def test_bytes_of_an_archive_that_were_changed(archive: Path) -> None:
    """Every byte of the table and of what stands before the records."""
    whole = archive.read_bytes()
    expected = torch.load(archive, weights_only=True)
    start = struct.unpack("<I", whole[-6:-2])[0]
    for at in [*range(64), *range(590, 640), *range(start, len(whole), 3)]:
        archive.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            source = TorchSource(archive)
        except CheckpointError:
            continue
        for name in source.names():
            assert torch.equal(source.read(name), expected[name]), f"byte {at}"


def test_a_storage_that_an_old_archive_does_not_list(tmp_path: Path) -> None:
    """torch.load gives it as memory happened to be: other numbers each time."""
    path = tmp_path / "x.pt"
    base = torch.arange(24.0)
    both = {"a": base, "b": base[1:]}  # one storage, named twice
    torch.save(both, path, _use_new_zipfile_serialization=False)
    data = bytearray(path.read_bytes())
    key = data.index(b"cpu") - 9  # the last digits of the name that the tensor's storage is given
    data[key : key + 2] = b"zz"
    path.write_bytes(data)
    assert "not in it" in refusal(path, lambda: TorchSource(path))


def test_archives_drawn_at_random() -> None:
    """A few of what `python -m tools.fuzz archives` draws."""
    refused = 0
    for number in range(150):
        try:
            fuzz.attempt(fuzz.make(random.Random(f"test {number}")))
        except fuzz.ALLOWED:
            refused += 1
    assert 60 < refused < 150
