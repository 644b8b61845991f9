"""safetensors files, one or several with an index: read as mapped memory, written tensor by tensor.

The format is small enough to be read here: eight bytes of length, a JSON header, the tensors one
after another. Reading the header ourselves lets a damaged file say what is wrong with it.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from griffin.checkpoints.errors import CheckpointError
from griffin.checkpoints.source import DTYPE_NAMES, STORED
from griffin.foreign import MOST, open_file, parse_json, shown

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# A longer header is damage or an attack: the largest model there may be has 2 MB of it, and what
# Python makes of JSON takes up to forty times its size.
MAX_HEADER = MOST

_MOST_DIMENSIONS = 8


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file
    size: int  # bytes


class SafetensorsSource:
    """The tensors of safetensors files whose headers were read: what `find_weights` found."""

    def __init__(self, files: tuple[Path, ...], entries: Mapping[str, Entry]) -> None:
        self.files, self._entries = files, entries
        self._mappings: dict[Path, Any] = {}

    def names(self) -> list[str]:
        return list(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name].shape

    def dtype(self, name: str) -> torch.dtype:
        return self._entries[name].dtype

    def where(self, name: str) -> Path:
        return self._entries[name].file

    def read(self, name: str) -> Tensor:
        """Return a view of the mapped file, in private memory: writing never reaches the file."""
        entry = self._entries[name]
        if entry.size == 0:
            return torch.empty(entry.shape, dtype=entry.dtype)
        storage = self._mappings.get(entry.file)
        if storage is None:
            total = entry.file.stat().st_size
            storage = torch.UntypedStorage.from_file(str(entry.file), shared=False, nbytes=total)
            self._mappings[entry.file] = storage
        raw = torch.empty(0, dtype=torch.uint8).set_(storage, entry.offset, (entry.size,))  # pyright: ignore
        if entry.offset % entry.dtype.itemsize:
            # A header of odd length: the values are not where a processor may read them.
            raw = raw.clone()
        return raw.view(entry.dtype).view(entry.shape)

    def release(self) -> None:
        self._mappings.clear()


def read_header(file: Path) -> dict[str, Entry]:
    """Read and check the header of one file; return its tensors in the order of their bytes.

    Raises CheckpointError where header, sizes and file do not agree, naming what was expected and
    found.
    """
    with open_file(file, CheckpointError) as stream:
        total = os.fstat(stream.fileno()).st_size
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise CheckpointError(
                f"{file} is truncated: {total} bytes, expected at least 8 for its header"
            )
        (length,) = struct.unpack("<Q", prefix)
        if length > MAX_HEADER:
            raise CheckpointError(
                f"{file} is not a safetensors file: it claims a header of {length} bytes"
            )
        if 8 + length > total:
            raise CheckpointError(
                f"{file} is truncated: its header ends at byte {8 + length}, it has {total}"
            )
        text = stream.read(length)
    header = parse_json(text, f"{file}: the header", CheckpointError)
    if not isinstance(header, dict):
        raise CheckpointError(f"{file}: the header must be a JSON object, not {shown(header)}")
    header.pop("__metadata__", None)
    entries = {name: _entry(file, name, fields, 8 + length) for name, fields in header.items()}
    entries = dict(sorted(entries.items(), key=lambda item: item[1].offset))
    end = 8 + length
    for name, entry in entries.items():
        if entry.offset != end:
            raise CheckpointError(
                f"{file}: {name} starts at byte {entry.offset}, expected {end}, where the tensor"
                " before ends"
            )
        end += entry.size
        if end > total:
            raise CheckpointError(
                f"{file} is truncated: {name} ends at byte {end}, the file has {total}"
            )
    if end != total:
        raise CheckpointError(f"{file}: its tensors end at byte {end}, the file has {total}")
    return entries


def _entry(file: Path, name: str, fields: Any, start: int) -> Entry:
    try:
        kind, shape, (begin, end) = fields["dtype"], tuple(fields["shape"]), fields["data_offsets"]
        whole = isinstance(kind, str) and len(shape) <= _MOST_DIMENSIONS
        whole = whole and all(type(n) is int and 0 <= n < 1 << 63 for n in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        whole, kind, shape, begin, end = False, None, (), 0, 0
    if not whole:
        raise CheckpointError(
            f"{file}: the header's entry for {name} lacks dtype, shape or data_offsets"
        )
    if kind not in STORED:
        raise CheckpointError(
            f"{file}: {name} has dtype {shown(kind)[1:-1]}; expected one of {', '.join(STORED)}"
        )
    expected = math.prod(shape) * STORED[kind].itemsize
    if end - begin != expected:
        raise CheckpointError(
            f"{file}: {name} takes {end - begin} bytes, expected {expected} for {kind}"
            f" {list(shape)}"
        )
    return Entry(file, STORED[kind], shape, start + begin, end - begin)


@dataclass(frozen=True)
class Planned:
    """A tensor that is about to be written."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_safetensors(
    folder: Path,
    plan: Mapping[str, Planned],
    read: Callable[[str], Tensor],
    max_shard_size: int,
) -> None:
    """Write tensors into `folder` (which must exist), each read only when its turn comes.

    One file if everything fits in `max_shard_size` bytes, otherwise shards with an index. A single
    tensor larger than that gets a shard of its own.
    """
    shards: list[list[str]] = [[]]
    filled = 0
    for name, planned in plan.items():
        if shards[-1] and filled + planned.size > max_shard_size:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += planned.size
    if len(shards) == 1:
        _write_file(folder / SINGLE, shards[0], plan, read)
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_file(folder / file, names, plan, read)
        weight_map |= dict.fromkeys(names, file)
    total = sum(planned.size for planned in plan.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _write_file(
    file: Path, names: Sequence[str], plan: Mapping[str, Planned], read: Callable[[str], Tensor]
) -> None:
    # What fills whole cache lines first: packed weights start on one. Then the widest values, so
    # that none of them starts at an odd address.
    names = sorted(
        names, key=lambda name: -plan[name].dtype.itemsize if plan[name].size % 64 else -64
    )
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        planned = plan[name]
        header[name] = {
            "dtype": DTYPE_NAMES[planned.dtype],
            "shape": list(planned.shape),
            "data_offsets": [end, end + planned.size],
        }
        end += planned.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            tensor = read(name)
            planned = plan[name]
            assert tuple(tensor.shape) == planned.shape and tensor.dtype == planned.dtype, name
            stream.write(tensor_bytes(tensor))


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor in row-major order, without a copy where it lies so already."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]
