"""DeepMind's Flax archive: an Orbax folder, as one OCDBT database or as plain zarr arrays.

Orbax flattens the tree of parameters into names joined by dots ("blocks.0" is one key, dot
included) and stores each as a zarr array, in files `d/...` under one database (`manifest.ocdbt`) or
in a folder of its own. tensorstore reads and writes both; JAX and Orbax are not needed.
"""

from __future__ import annotations

import base64
import errno
import importlib
import json
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from griffin.checkpoints.checkpoint import Checkpoint
from griffin.checkpoints.deepmind import config_for
from griffin.checkpoints.errors import CheckpointError
from griffin.checkpoints.rename import rules
from griffin.checkpoints.safetensors_files import Planned
from griffin.model import GriffinConfig

_MANIFEST = "manifest.ocdbt"
# zarr's and zarr3's names for the types we know.
_DTYPES = {
    "bfloat16": torch.bfloat16,
    "<f2": torch.float16,
    "<f4": torch.float32,
    "<f8": torch.float64,
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
}
_ZARR_NAMES = {
    torch.bfloat16: "bfloat16",
    torch.float16: "<f2",
    torch.float32: "<f4",
    torch.float64: "<f8",
}
_FORMATS = {".zarray": "zarr", "zarr.json": "zarr3"}
# One chunk of a written array: what is encoded, and later decoded, at a time.
_CHUNK = 32 << 20
# Arrays are committed together until they reach this many bytes.
_COMMIT = 128 << 20
# What a decoder makes of a byte, at most (zstd of zeros: 32,768), beside a small array of any kind:
# an array that claims more was never stored, and asking memory for it ends the process.
_MOST_FOR_A_BYTE = 1 << 16
_SMALL = 64 << 20
_LARGEST_DESCRIPTION = 1 << 20


def _tensorstore() -> Any:
    try:
        return importlib.import_module("tensorstore")
    except ImportError:
        raise CheckpointError(
            "DeepMind's Flax archives are read and written with tensorstore; install it with "
            "`pip install 'griffin-lm[flax]'`"
        ) from None


def find_orbax(path: Path, depth: int = 2) -> list[Path]:
    """Return the Orbax trees at `path`, or in folders below it (archives nest them, even twice)."""
    if (path / _MANIFEST).is_file() or any(path.glob("*/.zarray")) or any(path.glob("*/zarr.json")):
        return [path]
    if depth == 0:
        return []
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith((".", "_")))
    return [tree for folder in folders for tree in find_orbax(folder, depth - 1)]


class OrbaxSource:
    """The arrays of an Orbax folder, under dotted names without the root key `params`."""

    def __init__(self, path: Path) -> None:
        """Read the arrays' descriptions; raises CheckpointError where one is damaged, of a strange
        type, or says more than the files can hold."""
        self._ts = _tensorstore()
        self._path = path
        self._ocdbt = (path / _MANIFEST).is_file()
        entries = list(path.rglob("*"))
        if strange := [e for e in entries if not e.is_file() and not e.is_dir()]:
            raise CheckpointError(
                f"{min(strange)} is neither a file nor a folder; nothing else holds weights"
            )
        self.files = tuple(sorted(e for e in entries if e.is_file() and _holds_weights(e, path)))
        self._stored = [file.relative_to(path).as_posix() for file in self.files]
        self._keys: dict[str, tuple[str, str]] = {}  # name -> (folder in the store, driver)
        self._kinds: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        for key, driver, text in self._descriptions():
            name = key.replace("/", ".")
            self._keys[name] = (key, driver)
            self._kinds[name] = self._kind(name, text)
        self._arrays = self._open()
        if not self._keys:
            raise CheckpointError(
                f"{path} holds no arrays; expected an Orbax folder with zarr arrays"
            )
        if all(name.startswith("params.") for name in self._keys):
            self._keys = {name.removeprefix("params."): v for name, v in self._keys.items()}
            self._kinds = {name.removeprefix("params."): v for name, v in self._kinds.items()}
            self._arrays = {name.removeprefix("params."): v for name, v in self._arrays.items()}

    def _descriptions(self) -> Iterator[tuple[str, str, bytes]]:
        if not self._ocdbt:
            for file, driver in _FORMATS.items():
                for found in sorted(self._path.rglob(file)):
                    if not found.is_file() or found.stat().st_size > _LARGEST_DESCRIPTION:
                        raise CheckpointError(f"{found} is no description of an array")
                    folder = found.parent.relative_to(self._path).as_posix()
                    yield folder, driver, found.read_bytes()
            return
        try:
            store = self._ts.KvStore.open(self._store()).result()
            self._stored = [key.decode() for key in store.list().result()]
            wanted = [key for key in self._stored if key.rsplit("/", 1)[-1] in _FORMATS]
            values = [store.read(key) for key in wanted]
            for key, value in zip(wanted, values, strict=True):
                folder, file = key.rsplit("/", 1)
                yield folder, _FORMATS[file], value.result().value
        except ValueError as error:
            raise CheckpointError(
                f"{self._path / _MANIFEST} or its data is damaged: {_brief(error)}"
            ) from None

    def _store(self) -> dict[str, str]:
        if self._ocdbt:
            return {"driver": "ocdbt", "base": f"{self._path.absolute().as_uri()}/"}
        return {"driver": "file", "path": f"{self._path.absolute()}/"}

    def _kind(self, name: str, text: bytes) -> tuple[tuple[int, ...], torch.dtype]:
        try:
            fields = json.loads(text)
            kind, shape = fields.get("dtype", fields.get("data_type")), tuple(fields["shape"])
            if not all(type(n) is int and n >= 0 for n in shape):
                raise ValueError("a shape is of whole numbers")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise CheckpointError(
                f"{self._path}: the description of {name} is damaged: {text[:80]!r}"
            ) from None
        if not isinstance(kind, str) or kind not in _DTYPES:
            raise CheckpointError(
                f"{self._path}: {name} has dtype {kind}; expected bfloat16 or a float"
            )
        return shape, _DTYPES[kind]

    def names(self) -> list[str]:
        return list(self._kinds)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._kinds[name][0]

    def dtype(self, name: str) -> torch.dtype:
        return self._kinds[name][1]

    def where(self, name: str) -> Path:
        return self._path if self._ocdbt else self._path / self._keys[name][0]

    def _open(self) -> dict[str, Any]:
        """Open every array, all at once, and compare what each says with what is stored."""
        context, opening, arrays = self._ts.Context(), {}, {}
        for name, (key, driver) in self._keys.items():
            store = self._store()
            store["path"] = store.get("path", "") + f"{key}/"
            spec = {"driver": driver, "kvstore": store, "fill_missing_data_reads": False}
            opening[name] = self._ts.open(spec, open=True, read=True, context=context)
        stored, pieces = sum(file.stat().st_size for file in self.files), self._pieces()
        for name, future in opening.items():
            with self._reading(name):
                arrays[name] = future.result()
            self._check_size(name, arrays[name], stored, pieces[self._keys[name][0]])
        return arrays

    def _pieces(self) -> Counter[str]:
        """Return how many files or values beside descriptions lie below each array's folder."""
        folders, pieces = {folder for folder, _ in self._keys.values()}, Counter[str]()
        for key in self._stored:
            folder, _, file = key.rpartition("/")
            while folder and folder not in folders:
                folder = folder.rpartition("/")[0]
            pieces[folder] += file not in _FORMATS
        return pieces

    def _check_size(self, name: str, array: Any, stored: int, found: int) -> None:
        """Raise CheckpointError for an array, or chunks, that so many stored bytes cannot hold."""
        shape, item = array.shape, self.dtype(name).itemsize
        chunk = array.chunk_layout.write_chunk.shape or shape
        size, piece = math.prod(shape) * item, math.prod(chunk) * item
        if shape != self.shape(name) or max(size, piece) > stored * _MOST_FOR_A_BYTE + _SMALL:
            raise CheckpointError(
                f"{self.where(name)}: {name} is {list(shape)} in chunks of {list(chunk)}, of"
                f" {stored} bytes stored; no array of that size is in them"
            )
        if piece > max(size, _SMALL):
            raise CheckpointError(
                f"{self.where(name)}: {name} of {size} bytes has chunks of {list(chunk)}, which"
                f" take {piece} each"
            )
        wanted = math.prod(-(-n // each) for n, each in zip(shape, chunk, strict=True))
        if found < wanted:
            raise CheckpointError(
                f"{self.where(name)}: {name} cannot be read: of {wanted} chunks there are {found}"
            )

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise CheckpointError(
                f"{self.where(name)}: {name} cannot be read: {_brief(error)}"
            ) from None

    def read(self, name: str) -> Tensor:
        """Decode an array; compressed chunks cannot be mapped. A missing chunk is an error, not
        zeros."""
        with self._reading(name):
            values = self._arrays[name].read().result()
        values = np.ascontiguousarray(values)
        if self.dtype(name) == torch.bfloat16:
            return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(values)

    def release(self) -> None:
        """Do nothing: nothing is mapped."""


def _holds_weights(file: Path, root: Path) -> bool:
    """Tell weights from Orbax's notes and from tokenizer files beside them."""
    inner = file.relative_to(root).parts
    return file.name == _MANIFEST or (len(inner) > 1 and inner[0] != "array_metadatas")


def _brief(error: Exception) -> str:
    return str(error).split(" [tensorstore_spec=")[0].split(" [source locations=")[0]


def open_deepmind_flax(
    path: Path, config: GriffinConfig | Mapping[str, Any] | None, beside: Path | None = None
) -> Checkpoint:
    """Open an Orbax folder; `beside` is where tokenizer and config.json may lie, if not in it."""
    source = OrbaxSource(path)
    shapes: dict[str, tuple[int, ...]] = {}
    for name in source.names():
        shape = source.shape(name)
        if name.endswith(".kernel"):
            name, shape = name.removesuffix("kernel") + "weight", shape[::-1]
        shapes[name] = shape
    inside = (
        beside is None or (path / "tokenizer.json").exists() or (path / "tokenizer.model").exists()
    )
    folder = path if inside or beside is None else beside
    config_folder = next((f for f in (path, folder) if (f / "config.json").is_file()), path)
    found = config_for(shapes, config, path, config_folder)
    table = rules(found, "flax")
    return Checkpoint(found, "deepmind-flax", lambda: OrbaxSource(path), folder, table, source)


def write_deepmind_flax(
    folder: Path, plan: Mapping[str, Planned], read: Callable[[str], Tensor]
) -> None:
    """Write arrays into an empty folder as Orbax writes a tree, each read when its turn comes.

    `orbax.checkpoint.PyTreeCheckpointer().restore` and `recurrentgemma.load_parameters` read the
    result. The root has no `params` key, as in the released archives.
    """
    ts = _tensorstore()
    store = {"driver": "ocdbt", "base": f"{folder.absolute().as_uri()}/"}
    context = ts.Context()
    transaction, gathered = ts.Transaction(), 0
    pending: Any = None
    try:
        for name, planned in plan.items():
            tensor = read(name)
            assert tuple(tensor.shape) == planned.shape and tensor.dtype == planned.dtype, name
            rows = max(1, _CHUNK // max(1, planned.size // planned.shape[0]))
            rows = min(rows, planned.shape[0])
            spec = {
                "driver": "zarr",
                "kvstore": {**store, "path": f"{name}/"},
                "metadata": {
                    "shape": list(planned.shape),
                    "chunks": [rows, *planned.shape[1:]],
                    "dtype": _ZARR_NAMES[planned.dtype],
                    "compressor": {"id": "zstd", "level": 1},
                    "fill_value": None,
                    "order": "C",
                    "dimension_separator": ".",
                },
            }
            # A transaction keeps what it holds in memory: small arrays share one, large ones go
            # without.
            alone = planned.size > _COMMIT
            array = ts.open(
                spec, create=True, context=context, transaction=None if alone else transaction
            ).result()
            for begin in range(0, planned.shape[0], rows):
                end = min(begin + rows, planned.shape[0])
                pending = array[begin:end].write(_values(tensor[begin:end], ts))
                pending.result()
            gathered += 0 if alone else planned.size
            if gathered > _COMMIT:
                pending = transaction.commit_async()
                pending.result()
                transaction, gathered = ts.Transaction(), 0
        pending = transaction.commit_async()
        pending.result()
    except ValueError as error:
        # tensorstore has no error of its own for a full disk; the disk tells.
        if shutil.disk_usage(folder).free < _COMMIT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        raise CheckpointError(f"{folder} cannot be written: {_brief(error)}") from None
    except BaseException:
        # Ctrl-C leaves tensorstore's threads at work; they must be done before the folder can be
        # removed.
        transaction.abort()
        if pending is not None:
            pending.exception()
        raise
    for file, fields in _orbax_notes(plan).items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(fields))


def _values(rows: Tensor, ts: Any) -> np.ndarray:
    rows = rows.detach().cpu().contiguous()
    if rows.dtype == torch.bfloat16:
        return rows.view(torch.int16).numpy().view(ts.bfloat16.numpy_dtype)
    return rows.numpy()


def _keys(name: str) -> list[str]:
    """Split a dotted name into the tree's keys: "blocks.0.conv_1d.w" -> "blocks.0", "conv_1d",
    "w"."""
    parts = name.split(".")
    return [".".join(parts[:2]), *parts[2:]] if parts[0] == "blocks" else parts


def _orbax_notes(plan: Mapping[str, Planned]) -> dict[str, Any]:
    """Return the files Orbax keeps beside the arrays: the tree, its handler, the shapes, the
    shardings."""
    tree: dict[str, Any] = {}
    for name, planned in plan.items():
        keys = _keys(name)
        tree[repr(tuple(keys))] = {
            "key_metadata": [{"key": key, "key_type": 2} for key in keys],
            "value_metadata": {
                "value_type": "jax.Array",
                "skip_deserialize": False,
                "write_shape": list(planned.shape),
            },
        }
    now = time.time_ns()
    handler = "orbax.checkpoint._src.handlers.pytree_checkpoint_handler.PyTreeCheckpointHandler"
    one_device = json.dumps({"sharding_type": "SingleDeviceSharding", "device_str": "cpu:0"})
    return {
        "_METADATA": {
            "tree_metadata": tree,
            "use_ocdbt": True,
            "use_zarr3": False,
            "store_array_data_equal_to_fill_value": True,
            "custom_metadata": None,
        },
        "_CHECKPOINT_METADATA": {
            "item_handlers": handler,
            "metrics": {},
            "performance_metrics": {},
            "init_timestamp_nsecs": now,
            "commit_timestamp_nsecs": now,
            "custom_metadata": {},
        },
        "_sharding": {base64.b64encode(name.encode()).decode(): one_device for name in plan},
        "array_metadatas/process_0": {
            "array_metadatas": [
                {
                    "array_metadata": {
                        "param_name": name,
                        "write_shape": list(planned.shape),
                        "chunk_shape": list(planned.shape),
                        "ext_metadata": None,
                    }
                }
                for name, planned in plan.items()
            ]
        },
    }
