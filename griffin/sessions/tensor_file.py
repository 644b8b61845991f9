"""Safetensors files with a crc32 for every tensor and a digest for the header.

Any safetensors library reads them. Ours reads the parts it is asked for, and believes nothing it
has not checked: state files come from other people too.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from griffin.sessions.errors import StateTorn

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I64": torch.int64,
    "I32": torch.int32,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_BLANK = "0" * 32  # stands for the digest while the header is hashed
_USUAL_HEADER = 4096  # bytes that are read at once to have it; enough for that of a turn
_LONGEST_HEADER = 64 << 20  # bytes; a transcript of a million words is a tenth of it


class Spec(NamedTuple):
    """What a tensor must be."""

    dtype: torch.dtype
    shape: tuple[int, ...]


class PackedFile(NamedTuple):
    """A file ready to be written."""

    chunks: Sequence[bytes | memoryview]
    nbytes: int
    digest: str  # of all of it: the header holds the crc32 of every tensor


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> PackedFile:
    """Lay tensors out as a safetensors file, copying none that lies contiguous on the CPU.

    metadata: strings; the names "crc32" and "digest" are ours.
    """
    # Widest types first, so that every tensor begins at a multiple of its own width.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {}
    data: list[memoryview] = []
    crcs: dict[str, int] = {}
    end = 0
    for name in order:
        tensor = tensors[name].detach().cpu().contiguous()
        view = memory_of(tensor)
        start, end = end, end + len(view)
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        crcs[name] = zlib.crc32(view)
        data.append(view)
    header["__metadata__"] = {**metadata, "crc32": json.dumps(crcs), "digest": _BLANK}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.blake2b(text, digest_size=16).hexdigest()
    text = text.replace(_quoted(_BLANK), _quoted(digest))
    return PackedFile([len(text).to_bytes(8, "little"), text, *data], 8 + len(text) + end, digest)


class TensorFile:
    """A file that `pack` made; its header is checked at once, each tensor when it is read.

    path:     where it is, or what it is called.
    data:     its bytes, if they lie in memory.
    link:     it may be a link to a file.
    metadata: the strings given to `pack`.
    digest:   what `pack` returned.
    nbytes:   its size.
    specs:    every tensor's type and shape.
    Use it in a `with` block. Raises StateTorn, naming the file, for whatever is wrong with it.
    """

    def __init__(self, path: Path, data: bytes | None = None, *, link: bool = True) -> None:
        self.path = path
        self._bytes = _Opened(path, link) if data is None else _Held(data)
        try:
            self._read_header()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._bytes.close()

    def require(self, specs: Mapping[str, Spec]) -> None:
        """Raise StateTorn unless the file holds exactly these tensors."""
        found = self.specs
        if unlike := sorted(found.keys() ^ specs.keys()):
            raise self.torn(f"the tensors {', '.join(unlike)[:200]} are missing or not wanted")
        for name, spec in specs.items():
            if found[name] != spec:
                raise self.torn(
                    f"{name} is {found[name].shape} {found[name].dtype}; expected {spec.shape}"
                    f" {spec.dtype}"
                )

    def read(self, name: str) -> Tensor:
        """Return a tensor in memory of its own; StateTorn if a bit of it has changed."""
        spec, _ = self._entries[name]
        tensor = torch.empty(spec.shape, dtype=spec.dtype)
        self.read_into(name, [memory_of(tensor)])
        return tensor

    def read_into(self, name: str, places: Sequence[memoryview]) -> None:
        """Read a tensor's bytes into places in memory, one after another; StateTorn as for `read`.

        Raises ValueError unless the places together are as large as the tensor.
        """
        spec, start = self._entries[name]
        size = math.prod(spec.shape) * spec.dtype.itemsize
        if sum(map(len, places)) != size:
            raise ValueError(f"{name} has {size} bytes, the room for it {sum(map(len, places))}")
        if (count := self._bytes.read_into(places, start)) != size:
            raise self.torn(f"only {count} of {name}'s {size} bytes could be read")
        crc = 0
        for place in places:
            crc = zlib.crc32(place, crc)
        if crc != self._crcs[name]:
            raise self.torn(f"{name} is not what was written: its crc32 differs")

    def torn(self, reason: str) -> StateTorn:
        """Return the exception that says so."""
        return StateTorn(f"{self.path} is torn or not a state of ours: {reason}")

    def _read_header(self) -> None:
        size = self._bytes.nbytes
        try:
            begins = self._bytes.read(_USUAL_HEADER, 0)
            length = int.from_bytes(begins[:8], "little")
            if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
                raise self.torn(f"it has {size} bytes, of which {length} should be its header")
            text = begins[8 : 8 + length]
            if len(text) < length:
                text += self._bytes.read(length - len(text), 8 + len(text))
            header = json.loads(text)
        except OSError as error:
            raise self.torn(f"it cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            if isinstance(error, StateTorn):
                raise
            raise self.torn("its header is not JSON") from error
        metadata = header.get("__metadata__") if isinstance(header, dict) else None
        if not isinstance(metadata, dict) or not all(
            isinstance(text, str) for text in metadata.values()
        ):
            raise self.torn("its header is not that of a safetensors file with metadata")
        if "digest" not in metadata or "crc32" not in metadata:
            raise self.torn(
                f"its format is {metadata.get('format', 'unknown')!r:.100}, without checksums"
            )
        self.digest: str = metadata["digest"]
        self.nbytes = size
        try:
            whole = text.replace(_quoted(self.digest), _quoted(_BLANK))
            if hashlib.blake2b(whole, digest_size=16).hexdigest() != self.digest:
                raise self.torn("its header is not what was written: the digest differs")
            self._crcs: dict[str, int] = json.loads(metadata["crc32"])
            self._entries = {
                name: _entry(entry, 8 + length)
                for name, entry in header.items()
                if name != "__metadata__"
            }
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            if isinstance(error, StateTorn):
                raise
            raise self.torn(f"its header makes no sense ({error!s:.200})") from error
        if not isinstance(self._crcs, dict) or self._crcs.keys() != self._entries.keys():
            raise self.torn("its checksums are those of other tensors")
        end = 8 + length
        for spec, start in sorted(self._entries.values(), key=lambda entry: entry[1]):
            if start != end:
                raise self.torn("its tensors overlap or leave gaps")
            end += math.prod(spec.shape) * spec.dtype.itemsize
        if end != size:
            raise self.torn(f"it has {size} bytes instead of {end}")
        self.specs: dict[str, Spec] = {name: spec for name, (spec, _) in self._entries.items()}
        self.metadata: dict[str, str] = {
            k: v for k, v in metadata.items() if k not in ("crc32", "digest")
        }


class _Opened:
    """The bytes of a file on the disk."""

    def __init__(self, path: Path, link: bool) -> None:
        flags = os.O_RDONLY | (0 if link else os.O_NOFOLLOW)
        try:
            # Not waiting: a pipe has no size and is refused, instead of held on to for ever.
            self._handle = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise StateTorn(f"{path} is missing") from None
        except OSError as error:
            raise StateTorn(f"{path} cannot be opened: {error.strerror}") from error
        self.nbytes = os.fstat(self._handle).st_size

    def read(self, count: int, start: int) -> bytes:
        return os.pread(self._handle, count, start)

    def read_into(self, places: Sequence[memoryview], start: int) -> int:
        return os.preadv(self._handle, places, start)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class _Held:
    """The bytes of a file in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.nbytes = len(data)

    def read(self, count: int, start: int) -> bytes:
        return bytes(self._data[start : start + count])

    def read_into(self, places: Sequence[memoryview], start: int) -> int:
        for place in places:  # what a file at its end has too little of was refused with its header
            place[:] = self._data[start : start + len(place)]
            start += len(place)
        return sum(map(len, places))

    def close(self) -> None:
        pass


def _entry(entry: Any, offset: int) -> tuple[Spec, int]:
    """Return a tensor's spec and where it begins in the file; ValueError for what cannot be."""
    shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
    if not all(
        isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in (*shape, start, end)
    ):
        raise ValueError("a shape or an offset is not a whole number")
    spec = Spec(_DTYPES[entry["dtype"]], shape)
    if end - start != math.prod(shape) * spec.dtype.itemsize:
        raise ValueError(f"a tensor of shape {shape} does not fill its {end - start} bytes")
    return spec, offset + start


def _quoted(digest: str) -> bytes:
    """Return the digest as a header has it; no string of the header can hold these quotes."""
    return f'"digest":"{digest}"'.encode()


def memory_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous CPU tensor, not a copy of them."""
    return memoryview(cast(Any, tensor.reshape(-1).view(torch.uint8).numpy()))
