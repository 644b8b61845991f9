"""Torch archives in which records, the table or the pickle were changed: refused, or read as
torch.load reads them.

A case is an archive as torch.save writes it, written anew by another zip in which one to three
things were changed, or with bytes of it overwritten. Where torch.load, without a mapping, gives
tensors, ours gives the same bits, or those that were saved (some damage of the table makes
torch.load give memory as it happened to be), or refuses; nothing is read from behind a record.
"""

from __future__ import annotations

import io
import random
import tempfile
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch

from griffin.checkpoints import CheckpointError
from griffin.checkpoints.deepmind_torch import TorchSource

ALLOWED = (CheckpointError,)
_BASE = torch.arange(24.0).reshape(4, 6)
SAVED = {
    "a": _BASE,
    "view": _BASE[1:, ::2],
    "b": torch.ones(5).bfloat16(),
    "c": _BASE.T.clone(),
}


@dataclass(frozen=True)
class Case:
    """The bytes of an archive, and what was done to them."""

    data: bytes
    changes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.data)} bytes: {'; '.join(self.changes)}"


def make(chance: random.Random) -> Case:
    """Draw a case."""
    stream = io.BytesIO()
    torch.save(SAVED, stream, _use_new_zipfile_serialization=chance.random() < 0.8)
    data, changes = stream.getvalue(), []
    for _ in range(chance.choice([1, 1, 2, 3])):
        if data.startswith(b"PK") and chance.random() < 0.6:
            try:
                data, what = _rezipped(chance, data)
            except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, RuntimeError):
                continue
        else:
            data, what = _overwritten(chance, data)
        changes.append(what)
    return Case(data, tuple(changes))


def attempt(case: Case) -> None:
    """Read the archive, and compare with what torch makes of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pt"
        path.write_bytes(case.data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = TorchSource(path)
            tensors = {name: source.read(name).clone() for name in source.names()}
            try:
                expected = torch.load(path, weights_only=True)
            except Exception:  # it may be stricter, in its own words
                return
        assert list(tensors) == list(expected), case
        for name, t in tensors.items():
            others = [expected[name], *([SAVED[name]] if name in SAVED else [])]
            assert any(_same(t, other) for other in others), f"{case}: {name}"


def _same(t: torch.Tensor, other: torch.Tensor) -> bool:
    alike = (t.shape, t.dtype) == (other.shape, other.dtype)
    return alike and torch.equal(t.nan_to_num(0.5), other.nan_to_num(0.5))


def _overwritten(chance: random.Random, data: bytes) -> tuple[bytes, str]:
    kind = chance.choice(["bytes", "bytes", "bit", "cut", "gone", "more"])
    if not data:
        return data, "nothing"
    at = chance.randrange(len(data))
    if chance.random() < 0.5:  # the table is where most can go wrong
        at = max(0, len(data) - chance.randrange(1, 700))
    if kind == "cut":
        return data[:at], f"cut at {at}"
    if kind == "bit":
        flipped = bytes([data[at] ^ 1 << chance.randrange(8)])
        return data[:at] + flipped + data[at + 1 :], f"a bit of byte {at}"
    length = chance.choice([1, 2, 4, 8, 40])
    if kind == "gone":
        return data[:at] + data[at + length :], f"{length} bytes less at {at}"
    new = bytes(chance.choice([0, 1, 8, 255, chance.randrange(256)]) for _ in range(length))
    rest = data[at:] if kind == "more" else data[at + length :]
    return data[:at] + new + rest, f"{length} bytes ({kind}) at {at}"


def _rezipped(chance: random.Random, data: bytes) -> tuple[bytes, str]:
    """Write an archive anew with one record changed."""
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        records = [(info.filename, old.read(info)) for info in old.infolist()]
    place = chance.randrange(len(records))
    name, content = records[place]
    what = chance.choice(["short", "empty", "long", "left out", "deflated", "renamed", "twice"])
    method = zipfile.ZIP_STORED
    if what == "short":
        content = content[: chance.randrange(len(content) + 1)]
    elif what == "empty":
        content = b""
    elif what == "long":
        content += b"\1" * chance.choice([1, 4, 64])
    elif what == "deflated":
        method = zipfile.ZIP_DEFLATED
    elif what == "renamed":
        name = chance.choice(records)[0]
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as new:
        warnings.simplefilter("ignore")
        for number, (each, kept) in enumerate(records):
            if number == place and what == "left out":
                continue
            if number == place:
                new.writestr(zipfile.ZipInfo(name), content, method)
            if number != place or what == "twice":
                new.writestr(zipfile.ZipInfo(each), kept)
    return stream.getvalue(), f"{records[place][0]} {what}"
