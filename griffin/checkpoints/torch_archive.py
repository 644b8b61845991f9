"""The zip file that torch.save makes, read by its own table: each record where the table says it
lies, and no longer than it says.

torch.load with mmap asks the table for a record's beginning and the pickle for its length, so what
is short, empty or compressed there becomes other weights without a word. Here a storage is the
bytes of its record, or the file is refused.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._weights_only_unpickler import Unpickler

from griffin.checkpoints.errors import CheckpointError

PICKLE = "data.pkl"
# Archives from before torch 1.6 are pickles in a row, the fourth that of the tensors.
OLD_PICKLES = 4
# Names and shapes of a few hundred tensors take some 100 KB.
_LARGEST_PICKLE = 64 << 20
_LOCAL = struct.Struct("<4s5H3I2H")  # what stands before a record, without its name and extra field
_SIZED_BEHIND = 8  # the flag of a record whose sizes follow it, and are 0 before it
_ENCRYPTED = 1


@dataclass(frozen=True)
class Record:
    """Where the bytes of a record lie in the file."""

    start: int
    size: int


def records(path: Path) -> dict[str, Record]:
    """Return the records of an archive by their names without its folder.

    Raises CheckpointError for a table that is damaged, or tells two stories: records that are
    compressed, overlap, lie outside, have one name or another before their bytes than in the table.
    """
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
            end, found = 0, {}
            for entry in entries:
                if entry.header_offset < end or (not found and entry.header_offset):
                    raise _damaged(path, entry, "does not begin where the one before ends")
                record = _record(path, entry, stream)
                end = record.start + record.size
                if end > archive.start_dir:
                    raise _damaged(path, entry, "reaches into the table at the file's end")
                if entry.filename in found:
                    raise _damaged(path, entry, "is there twice")
                found[entry.filename] = record
    except (
        *(zipfile.BadZipFile, struct.error, ValueError, OverflowError, EOFError),
        *(NotImplementedError, OSError, MemoryError),
    ) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path} is no readable torch archive, or truncated: {error} (found"
            f" {path.stat().st_size} bytes)"
        ) from None
    pickles = [name for name in found if name.count("/") == 1 and name.endswith(f"/{PICKLE}")]
    if len(pickles) != 1:
        raise CheckpointError(
            f"{path} is a zip file with {len(pickles)} records FOLDER/{PICKLE}; a torch archive has"
            " one"
        )
    folder = pickles[0].removesuffix(PICKLE)
    return {name.removeprefix(folder): r for name, r in found.items() if name.startswith(folder)}


def _record(path: Path, entry: zipfile.ZipInfo, stream: io.BufferedReader) -> Record:
    """Return where a record lies, if what stands before it says the same as the table."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise CheckpointError(
            f"{path}: {entry.filename} is compressed, which torch.save never does; torch.load it"
            " without mmap and torch.save it anew"
        )
    if entry.flag_bits & _ENCRYPTED:
        raise _damaged(path, entry, "is encrypted")
    stream.seek(entry.header_offset)
    signature, _, flags, method, _, _, _, packed, size, named, extra = _LOCAL.unpack(
        stream.read(_LOCAL.size)
    )
    name, fields = stream.read(named), stream.read(extra)
    own = name.decode("utf-8" if entry.flag_bits & 0x800 else "cp437")
    sizes = _sizes(packed, size, fields)
    # torch.save leaves them 0 before a record, and so does whoever cannot go back to write them.
    unsaid = sizes == (0, 0) and flags & _SIZED_BEHIND
    if (
        signature != b"PK\x03\x04"
        or method != entry.compress_type
        or own != entry.orig_filename
        or not (unsaid or sizes == (entry.compress_size, entry.file_size))
    ):
        raise _damaged(path, entry, "is another before its bytes than in the table")
    return Record(entry.header_offset + _LOCAL.size + named + extra, entry.file_size)


def _sizes(packed: int, size: int, fields: bytes) -> tuple[int, int]:
    """Return (compressed size, size) of a local header; in an extra field where they are large."""
    at = 0
    while 0xFFFFFFFF in (packed, size) and at + 4 <= len(fields):
        kind, length = struct.unpack_from("<2H", fields, at)
        if kind == 1 and length >= 16:
            large, small = struct.unpack_from("<2Q", fields, at + 4)
            return small, large
        at += 4 + length
    return packed, size


def _damaged(path: Path, entry: zipfile.ZipInfo, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: its record {entry.filename} {what}")


def load(path: Path) -> Any:
    """Return what an archive's pickle holds, its tensors mapped from the file.

    Only what torch's `weights_only` allows is made (pickle.UnpicklingError). Raises CheckpointError
    for a storage that is not in the file whole, and for a tensor that lies outside its storage.
    """
    table = records(path)
    total = path.stat().st_size
    mapping: Any = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=total)
    storages: dict[str, Any] = {}

    def contents(name: str, most: int) -> bytes:
        record = table[name]
        if record.size > most:
            raise CheckpointError(
                f"{path}: {name} has {record.size} bytes; at most {most} are read"
            )
        with path.open("rb") as stream:
            stream.seek(record.start)
            return stream.read(record.size)

    def storage_of(saved: Any) -> Any:
        kind, (storage_type, key, _, count) = saved[0], saved[1:]
        if kind not in ("storage", b"storage") or type(count) is not int or count < 0:
            raise pickle.UnpicklingError("persistent_load id is no storage")
        untyped = storage_type is torch.UntypedStorage
        dtype = torch.uint8 if untyped else storage_type.dtype
        needed, record = count * dtype.itemsize, table.get(f"data/{key}")
        if record is None or record.size < needed:
            found = "no record" if record is None else f"a record of {record.size} bytes"
            raise CheckpointError(
                f"{path} is damaged: storage {key} takes {needed} bytes, and there is {found} of it"
            )
        if f"{key}" not in storages:
            raw = mapping[record.start : record.start + record.size]
            # Not where a processor may read them: torch.save begins records at 64 bytes.
            storages[f"{key}"] = raw.clone() if record.start % 8 else raw
        return torch.storage.TypedStorage(
            wrap_storage=storages[f"{key}"], dtype=dtype, _internal=True
        )

    order = contents("byteorder", 16) if "byteorder" in table else b"little"
    if order != sys.byteorder.encode():
        raise CheckpointError(f"{path} was written on another kind of machine: {order!r} endian")
    unpickler = Unpickler(io.BytesIO(contents(PICKLE, _LARGEST_PICKLE)), encoding="utf-8")
    unpickler.persistent_load = storage_of  # pyright: ignore[reportAttributeAccessIssue]
    loaded = unpickler.load()
    for key, storage in storages.items():
        if storage.nbytes() != table[f"data/{key}"].size:
            raise CheckpointError(f"{path} is damaged: a tensor lies outside its storage {key}")
    return loaded


def load_old(path: Path) -> Any:
    """Return what an archive from before torch 1.6 holds: pickles in a row, and then the storages.

    torch.load leaves a storage that the list of them does not name as memory happened to be; here
    that is a CheckpointError. Otherwise as `load`, but that nothing is mapped.
    """
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    asked: set[Any] = set()

    def storage_of(saved: Any) -> Any:
        asked.add(saved[2])
        nothing = torch.UntypedStorage(saved[4] * saved[1].dtype.itemsize, device="meta")
        return torch.storage.TypedStorage(
            wrap_storage=nothing, dtype=saved[1].dtype, _internal=True
        )

    with path.open("rb") as stream:
        for _ in range(OLD_PICKLES - 1):
            Unpickler(stream, encoding="utf-8").load()
        unpickler = Unpickler(stream, encoding="utf-8")
        unpickler.persistent_load = storage_of  # pyright: ignore[reportAttributeAccessIssue]
        unpickler.load()
        listed = set(Unpickler(stream, encoding="utf-8").load())
    if listed != asked:
        raise CheckpointError(
            f"{path} is damaged: its tensors lie in storages {sorted(map(str, asked - listed))},"
            " which are not in it"
        )
    return loaded
