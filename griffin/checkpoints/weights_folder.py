"""Which safetensors of a folder are the model: one file, or shards with their index.

Two answers are never chosen between in silence. An index that outlived its shards gives way to a
whole file; where both are whole they must hold the same, to the bit.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from griffin.checkpoints.errors import CheckpointError, listed
from griffin.checkpoints.safetensors_files import (
    INDEX,
    SINGLE,
    Entry,
    SafetensorsSource,
    read_header,
)
from griffin.foreign import is_there, parse_json, read_bytes, shown

_BLOCK = 64 << 10  # bytes compared at a time: they stay in the caches


class Weights(NamedTuple):
    """The files of a model, where in them each tensor lies, and what else was found."""

    files: tuple[Path, ...]
    entries: dict[str, Entry]
    notes: tuple[str, ...] = ()

    def source(self) -> SafetensorsSource:
        return SafetensorsSource(self.files, self.entries)


def find_weights(path: Path) -> Weights:
    """Return the weights of a folder, of one file, or of shards named by their index.

    Headers are read, values only where a folder holds both a whole file and whole shards: then
    both are read from end to end and compared. Raises CheckpointError for what is missing, damaged
    or contradicts itself.
    """
    if not path.is_dir():
        return _sharded(path) if path.name.endswith(".index.json") else _single(path)
    index, single = path / INDEX, path / SINGLE
    lying = sorted(path.glob("*.safetensors"))
    named = {SINGLE}
    if is_there(index):
        named |= set(_weight_map(index).values())
        found = _either(index, single) if is_there(single) else _sharded(index)
    elif is_there(single):
        found = _single(single)
    elif len(lying) == 1:
        found = _single(lying[0])
    else:
        raise CheckpointError(
            f"{path} holds {len(lying)} safetensors files and no {INDEX}; expected {SINGLE}, or"
            " shards with their index"
        )
    if unread := [
        file.name for file in lying if file not in found.files and file.name not in named
    ]:
        note = f"{path} also holds what is not read: {listed(unread)}"
        found = found._replace(notes=(*found.notes, note))
    return found


def _single(file: Path) -> Weights:
    return Weights((file,), read_header(file))


def _either(index: Path, single: Path) -> Weights:
    shards = set(_weight_map(index).values())
    missing = sorted(name for name in shards if not is_there(index.parent / name))
    if single.name in shards:
        return _sharded(index)
    if missing:
        note = f"{index} names shards that are not there: {listed(missing)}; {single} was read"
        return _single(single)._replace(notes=(note,))
    whole, parts = _single(single), _sharded(index)
    if differing := _difference(whole, parts):
        newest = max(file.stat().st_mtime for file in parts.files)
        raise CheckpointError(
            f"{single} (of {_time(single.stat().st_mtime)}) and the shards of {index} (of"
            f" {_time(newest)}) hold different weights: {differing}; remove the old ones, or name"
            " one of these two files"
        )
    note = f"{index.parent} holds its weights twice, in {single.name} and in shards; they are equal"
    return whole._replace(notes=(note,))


def _difference(left: Weights, right: Weights) -> str:
    """Return what differs first; nothing where all is equal. Values are read only if all else
    is."""
    if apart := sorted(left.entries.keys() ^ right.entries.keys()):
        return f"only one of them has {listed(apart)}"
    for name, one in left.entries.items():
        other = right.entries[name]
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            return f"{name} is {one.dtype} {list(one.shape)} and {other.dtype} {list(other.shape)}"
    for name, one in left.entries.items():
        if not _same_bytes(one, right.entries[name]):
            return f"the values of {name}"
    return ""


def _same_bytes(one: Entry, other: Entry) -> bool:
    with one.file.open("rb") as left, other.file.open("rb") as right:
        left.seek(one.offset)
        right.seek(other.offset)
        for begin in range(0, one.size, _BLOCK):
            some = min(_BLOCK, one.size - begin)
            if left.read(some) != right.read(some):
                return False
    return True


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")


def _sharded(index: Path) -> Weights:
    weight_map = _weight_map(index)
    files = tuple(index.parent / name for name in sorted(set(weight_map.values())))
    if missing := [file.name for file in files if not is_there(file)]:
        raise CheckpointError(f"{index} names shards that are not there: {listed(missing)}")
    entries: dict[str, Entry] = {}
    for file in files:
        header = read_header(file)
        promised = {name for name, shard in weight_map.items() if shard == file.name}
        if absent := sorted(promised - set(header)):
            raise CheckpointError(f"{file} lacks {listed(absent)}, which {index.name} places in it")
        if extra := sorted(set(header) - promised):
            raise CheckpointError(
                f"{file} holds {listed(extra)}, which {index.name} does not place in it"
            )
        entries.update(header)
    return Weights(files, entries)


def _weight_map(index: Path) -> dict[str, str]:
    text = read_bytes(index, refuse=CheckpointError)
    fields: Any = parse_json(text, f"{index} is not an index: its text", CheckpointError)
    weight_map = fields.get("weight_map") if isinstance(fields, dict) else None
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index} is not an index: expected JSON with a weight_map")
    if not weight_map:
        raise CheckpointError(f"{index}: weight_map must name at least one tensor")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.isprintable():
            raise CheckpointError(
                f"{index} places {name} in {shown(shard)}; a shard is a file name in the same"
                " folder"
            )
    return weight_map
