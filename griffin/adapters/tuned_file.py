"""A tuned state in one file: safetensors, with what it belongs to in the metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from griffin.adapters.metadata import read_metadata
from griffin.checkpoints.errors import disk_errors
from griffin.checkpoints.safetensors_files import SafetensorsSource, read_header
from griffin.checkpoints.staging import staged_file
from griffin.foreign import parse_json
from griffin.model import GriffinConfig, TunedState

KIND, VERSION = "griffin tuned state", "1"
_FIELDS = ("kind", "version", "config", "weights", "adapter", "name", "digest")
_NAMES = ("lru", "conv", "k", "v")


def save_tuned_state(tuned: TunedState, path: str | Path) -> int:
    """Write a tuned state; the file appears whole or not at all. Return its bytes.

    Raises ValueError for a state that `open_tuned` would refuse.
    """
    tuned.check_tensors()
    target = Path(path).expanduser()
    metadata = {
        "kind": KIND,
        "version": VERSION,
        "config": json.dumps(tuned.config.to_dict()),
        "weights": tuned.weights,
        "adapter": tuned.adapter,
        "name": tuned.name,
        "digest": tuned.digest(),
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in tuned.tensors().items()}
    with disk_errors(target), staged_file(target) as staged:
        save_file(tensors, staged, metadata)
        staged.chmod(0o600)
    return target.stat().st_size


def is_tuned(path: str | Path) -> bool:
    """Return whether a file says that it is a tuned state; nothing else of it is looked at."""
    try:
        return read_metadata(Path(path).expanduser()).get("kind") == KIND
    except (OSError, ValueError):
        return False


def open_tuned(path: str | Path) -> TunedState:
    """Read a tuned state, and check all of the file.

    Raises ValueError, naming the file, for one that is torn, of another kind or version, of other
    tensors than its config says, or not finite. Whether it fits a model is `TunedState.check`'s to
    say.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"there is no tuned state {file}")
    said = read_metadata(file)
    if said.get("kind") != KIND:
        raise ValueError(
            f"{file} is no tuned state: its format is {said.get('format', 'unknown')!r:.60}"
            " (`griffin finetune --method state` makes one; `griffin chat --state` goes on from"
            " what `griffin state build` wrote)"
        )
    if said.get("version") != VERSION or sorted(said) != sorted(_FIELDS):
        raise ValueError(
            f"{file} is a tuned state of version {said.get('version')!r:.20} with the fields"
            f" {', '.join(sorted(said)):.200}; version {VERSION} has {', '.join(sorted(_FIELDS))}"
        )
    entries = read_header(file)
    if sorted(entries) != sorted(_NAMES):
        raise ValueError(
            f"{file} holds {', '.join(sorted(entries)):.200}; a tuned state holds"
            f" {', '.join(sorted(_NAMES))}"
        )
    source = SafetensorsSource((file,), entries)
    tensors = {name: source.read(name).clone() for name in _NAMES}
    source.release()
    try:
        config = GriffinConfig.from_dict(parse_json(said["config"].encode(), "its config"))
        words = {key: said[key] for key in ("weights", "adapter", "name")}
        fields: dict[str, Any] = {"config": config, **words, **tensors}
        tuned = TunedState(**fields)
        tuned.check_tensors()
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from error
    if tuned.digest() != said["digest"]:
        raise ValueError(f"{file} is torn: its tensors are not those that were written")
    return tuned
