"""DeepMind's torch archive: one `.pt` file, a flat dictionary of tensors.

Reading goes through torch's weights_only, so a pickle that asks for anything but tensors is refused
before it runs, and by the archive's own table. Writing produces the same zip layout as torch.save,
one tensor after another: a model never has to be in memory.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from griffin.checkpoints import torch_archive
from griffin.checkpoints.checkpoint import Checkpoint
from griffin.checkpoints.deepmind import config_for
from griffin.checkpoints.errors import CheckpointError, listed
from griffin.checkpoints.rename import rules
from griffin.checkpoints.safetensors_files import Planned, tensor_bytes
from griffin.model import GriffinConfig

# torch.load maps storages; 64 bytes is where torch.save puts them.
_ALIGNMENT = 64
_STORAGES = {
    torch.float64: torch.DoubleStorage,
    torch.float32: torch.FloatStorage,
    torch.float16: torch.HalfStorage,
    torch.bfloat16: torch.BFloat16Storage,
}


class TorchSource:
    """The tensors of a `.pt` file."""

    def __init__(self, path: Path) -> None:
        """Read the archive's table of contents; raises CheckpointError for what is not a dict of
        tensors."""
        self.files = (path,)
        self._path = path
        self._mapped: dict[str, Tensor] | None = _load(path)
        self._kinds = {name: (tuple(t.shape), t.dtype) for name, t in self._mapped.items()}

    def names(self) -> list[str]:
        return list(self._kinds)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._kinds[name][0]

    def dtype(self, name: str) -> torch.dtype:
        return self._kinds[name][1]

    def where(self, name: str) -> Path:
        return self._path

    def read(self, name: str) -> Tensor:
        if self._mapped is None:
            self._mapped = _load(self._path)
        return self._mapped[name]

    def release(self) -> None:
        self._mapped = None


def _load(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is no file")
    with path.open("rb") as stream:
        is_zip = stream.read(4) == b"PK\x03\x04"
    try:
        # Archives from before torch 1.6 are no zip files and cannot be mapped.
        content = torch_archive.load(path) if is_zip else torch_archive.load_old(path)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        names = listed(sorted(_asked_for(path, is_zip)))
        reason = f"its pickle asks for {names}" if names else _first_line(error)
        raise CheckpointError(
            f"{path} was refused and nothing in it was run: {reason}; expected a dictionary of"
            " plain tensors"
        ) from None
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        IndexError,
        AssertionError,
        MemoryError,
        RecursionError,
        OverflowError,
        struct.error,
    ) as error:
        raise CheckpointError(
            f"{path} is no readable torch archive, or truncated: {_first_line(error)} "
            f"(found {path.stat().st_size} bytes)"
        ) from None
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"{path} holds {type(content).__name__}, expected a dictionary of tensors by name"
        )
    tensors: dict[str, Tensor] = {}
    size = path.stat().st_size
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{path}: {name!r} is a {type(tensor).__name__}; expected a dictionary of tensors"
                " by name"
            )
        if tensor.layout != torch.strided or tensor.is_quantized or not tensor.is_cpu:
            raise CheckpointError(
                f"{path}: {name} is {tensor.layout} on {tensor.device}; expected a dense tensor"
            )
        if tensor.numel() * tensor.itemsize > max(size, 1 << 20):
            raise CheckpointError(
                f"{path}: {name} repeats its values to a shape of {list(tensor.shape)}, larger than"
                " the file"
            )
        tensors[name] = tensor.detach()
    # Flax variables converted by DeepMind's own script keep their root.
    if all(name.startswith("params.") for name in tensors):
        tensors = {name.removeprefix("params."): tensor for name, tensor in tensors.items()}
    return tensors


def _asked_for(path: Path, is_zip: bool) -> set[str]:
    """Return which functions and classes, other than torch's, a pickle names; none of it is run."""
    names: set[str] = set()
    try:
        with ExitStack() as stack:
            pickled: IO[bytes] = stack.enter_context(path.open("rb"))
            if is_zip:
                archive = stack.enter_context(zipfile.ZipFile(pickled))
                (member,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
                pickled = stack.enter_context(archive.open(member))
            for _ in range(1 if is_zip else torch_archive.OLD_PICKLES):
                for op, argument, _ in pickletools.genops(pickled):
                    if op.name == "GLOBAL" and isinstance(argument, str):
                        names.add(argument.replace(" ", "."))
    except (
        *(ValueError, EOFError, KeyError, struct.error, OverflowError, zipfile.BadZipFile),
        *(NotImplementedError, MemoryError, IndexError),
    ):
        pass  # what was read until then is worth telling
    return {name for name in names if not name.startswith(("torch.", "collections."))}


def _first_line(error: BaseException) -> str:
    """Return what torch says without its advice, and an exception's name where it says too
    little."""
    text = str(error).strip().split("\n")[0].split(". ")[0]
    return text if " " in text else f"{type(error).__name__} {text}".strip()


def open_deepmind_torch(path: Path, config: GriffinConfig | Mapping[str, Any] | None) -> Checkpoint:
    """Open a `.pt` archive; see `open` for `config`."""
    source = TorchSource(path)
    if any(name.startswith("model.layers.") for name in source.names()):
        raise CheckpointError(
            f"{path} holds Hugging Face names in a pickle; expected DeepMind's names, or"
            " safetensors"
        )
    shapes = {name: source.shape(name) for name in source.names()}
    found = config_for(shapes, config, path, path.parent)
    table = rules(found, "torch")
    return Checkpoint(
        found, "deepmind-torch", lambda: TorchSource(path), path.parent, table, source
    )


class _Storage:
    """Stands for the bytes of one tensor while the pickle is written."""

    def __init__(self, key: int, planned: Planned) -> None:
        self.persistent = (
            "storage",
            _STORAGES[planned.dtype],
            str(key),
            "cpu",
            math.prod(planned.shape),
        )


class _Rebuilt:
    """Pickles as the call that rebuilds a tensor from its storage, as torch.save writes it."""

    def __init__(self, key: int, planned: Planned) -> None:
        self._storage = _Storage(key, planned)
        self._shape = planned.shape

    def __reduce__(self) -> tuple[Any, ...]:
        stride = torch.empty(self._shape, device="meta").stride()
        arguments = (self._storage, 0, self._shape, stride, False, OrderedDict())
        rebuild = torch._utils._rebuild_tensor_v2  # pyright: ignore[reportAttributeAccessIssue]
        return rebuild, arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.persistent if isinstance(obj, _Storage) else None


def write_deepmind_torch(
    file: Path, plan: Mapping[str, Planned], read: Callable[[str], Tensor]
) -> None:
    """Write tensors as torch.save writes a dictionary of them, each read only when its turn comes.

    torch.load reads the result, with weights_only and mmap too.
    """
    index = io.BytesIO()
    _Pickler(index, protocol=2).dump(
        {name: _Rebuilt(key, p) for key, (name, p) in enumerate(plan.items())}
    )
    with file.open("wb") as stream, zipfile.ZipFile(stream, "w") as archive:
        _record(archive, stream, "data.pkl", index.getvalue())
        _record(archive, stream, "byteorder", b"little")
        for key, (name, planned) in enumerate(plan.items()):
            tensor = read(name)
            assert tuple(tensor.shape) == planned.shape and tensor.dtype == planned.dtype, name
            _record(archive, stream, f"data/{key}", tensor_bytes(tensor))
        _record(archive, stream, "version", b"3\n")


def _record(
    archive: zipfile.ZipFile, stream: io.BufferedWriter, name: str, content: bytes | memoryview
) -> None:
    info = zipfile.ZipInfo(f"archive/{name}", date_time=(1980, 1, 1, 0, 0, 0))
    large = len(content) >= zipfile.ZIP64_LIMIT
    # Local header: 30 bytes, the name, 20 bytes for large sizes, then a padding field of our own
    # ("FB").
    start = stream.tell() + 30 + len(info.filename) + (20 if large else 0) + 4
    padding = -start % _ALIGNMENT
    info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    with archive.open(info, "w", force_zip64=large) as record:
        for begin in range(0, len(content), 1 << 24):
            record.write(content[begin : begin + (1 << 24)])
