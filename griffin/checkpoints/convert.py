"""Any layout -> any layout, one tensor at a time."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from griffin.checkpoints.checkpoint import Checkpoint
from griffin.checkpoints.config_fields import generation_fields
from griffin.checkpoints.config_json import fits_huggingface, to_config_json
from griffin.checkpoints.deepmind_flax import write_deepmind_flax
from griffin.checkpoints.deepmind_torch import write_deepmind_torch
from griffin.checkpoints.errors import CheckpointError, disk_errors
from griffin.checkpoints.models import parse_dtype, parse_size
from griffin.checkpoints.names import tensor_shapes
from griffin.checkpoints.opening import open_checkpoint
from griffin.checkpoints.progress import Progress
from griffin.checkpoints.rename import Flavour, fits_deepmind, rules
from griffin.checkpoints.safetensors_files import Planned, write_safetensors
from griffin.checkpoints.staging import staged_file, staged_folder
from griffin.foreign import is_there, read_object
from griffin.model import GriffinConfig

Target = Literal["huggingface", "deepmind-torch", "deepmind-flax"]

# What travels along: the tokenizer, and how to talk to the model.
COMPANIONS = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
)
# The torch archive's name inside a folder.
ARCHIVE = "model.pt"


@dataclass(frozen=True)
class Converted:
    """What a conversion made."""

    path: Path
    layout: Target
    config: GriffinConfig
    tensors: int
    nbytes: int
    notes: tuple[str, ...]
    copied: tuple[str, ...]


def convert(
    src: str | Path | Checkpoint,
    dst: str | Path,
    to: Target = "huggingface",
    dtype: torch.dtype | str | None = None,
    progress: Callable[[Progress], None] | None = None,
    *,
    config: GriffinConfig | Mapping[str, Any] | None = None,
    revision: str | None = None,
    max_shard_size: int | str = "5GB",
    change: Callable[[str, Tensor], Tensor] | None = None,
) -> Converted:
    """Write a checkpoint in another layout; tokenizer files beside it are copied along.

    src:   what `open` accepts, or an opened checkpoint.
    dst:   a folder that does not exist yet or is empty. With to="deepmind-torch" a path ending in
           .pt is the archive itself (no config.json beside it then); otherwise it is `model.pt` in
           the folder.
    dtype: the type of the result; as stored if omitted.
    change: is given each tensor under its Hugging Face name as it is stored, and returns what is
           to be written in its place, of that shape and type.
    Memory stays at a few tensors, whatever the size of the model. Every value is checked: NaN and
    infinity are refused, those a narrower dtype would overflow to included. The result appears
    whole or not at all, Ctrl-C and a full disk (OSError) included. Raises CheckpointError for what
    `to` cannot express.
    """
    if to not in get_args(Target):
        raise ValueError(f"to must be one of {', '.join(get_args(Target))}, not {to!r}")
    shard_size = parse_size(max_shard_size)
    wanted = None if dtype is None else parse_dtype(dtype)
    target = Path(dst).expanduser()
    as_file = to == "deepmind-torch" and target.suffix == ".pt"
    if target.exists() and (as_file or not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} exists already; expected a new path or an empty folder")
    source = (
        src
        if isinstance(src, Checkpoint)
        else open_checkpoint(src, config=config, revision=revision)
    )
    if to != "huggingface" and (reasons := fits_deepmind(source.config)):
        raise CheckpointError(f"{to} cannot hold this model: {'; '.join(reasons)}")

    plan, parts = _plan(source, to, wanted, change)
    total = sum(planned.size for planned in plan.values())
    done = 0

    def read(name: str) -> Tensor:
        nonlocal done
        if progress is not None:
            progress(Progress(done, total, name))
        tensor = parts[name](plan[name].dtype)
        done += plan[name].size
        return tensor

    check_room(target, total)
    copied: tuple[str, ...] = ()
    if as_file:
        with disk_errors(target), staged_file(target) as staged:
            write_deepmind_torch(staged, plan, read)
    else:
        with disk_errors(target), staged_folder(target) as staged:
            if to == "huggingface":
                write_safetensors(staged, plan, read, shard_size)
            elif to == "deepmind-torch":
                write_deepmind_torch(staged / ARCHIVE, plan, read)
            else:
                write_deepmind_flax(staged, plan, read)
            fields = to_config_json(source.config, wanted or source.own_dtype)
            (staged / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
            if source.layout != "random":
                copied = copy_companions(source.folder, staged)
    if progress is not None:
        progress(Progress(total, total, ""))
    notes = source.notes
    if to == "huggingface" and (reasons := fits_huggingface(source.config)):
        notes += (f"transformers cannot load the result, griffin can: {'; '.join(reasons)}",)
    return Converted(target, to, source.config, len(plan), total, notes, copied)


Reader = Callable[[torch.dtype], Tensor]


def _plan(
    source: Checkpoint,
    to: Target,
    dtype: torch.dtype | None,
    change: Callable[[str, Tensor], Tensor] | None,
) -> tuple[dict[str, Planned], dict[str, Reader]]:
    """Return what will be written, by its name there, and how to make each tensor."""
    shapes = tensor_shapes(source.config)

    def ours(name: str, kind: torch.dtype) -> Tensor:
        tensor = source.read_apart(name)
        if change is not None:
            tensor = change(name, tensor)
        source.check_finite(name, tensor)
        if kind != tensor.dtype:
            tensor = tensor.to(kind)
            source.check_finite(name, tensor)
        return tensor

    if to == "huggingface":
        plan = {name: Planned(shape, dtype or source.dtype(name)) for name, shape in shapes.items()}
        return plan, {name: lambda kind, name=name: ours(name, kind) for name in plan}
    plan, readers = {}, {}
    flavour: Flavour = "torch" if to == "deepmind-torch" else "flax"
    for name, rule in rules(source.config, flavour).items():
        kinds = {source.dtype(part) for part in rule.huggingface}
        if dtype is None and len(kinds) > 1:
            raise CheckpointError(
                f"{' and '.join(rule.huggingface)} become one tensor, expected one dtype, found "
                f"{', '.join(sorted(str(kind) for kind in kinds))}; choose one with dtype="
            )
        plan[name] = Planned(rule.shape(shapes), dtype or kinds.pop())
        readers[name] = lambda kind, rule=rule: rule.transform.join(
            tuple(ours(part, kind) for part in rule.huggingface)
        )
    return plan, readers


def check_room(target: Path, total: int) -> None:
    existing = next(
        parent for parent in (target.absolute(), *target.absolute().parents) if parent.exists()
    )
    free = shutil.disk_usage(existing).free
    if free < total:
        raise OSError(
            errno.ENOSPC,
            f"no room to write {target}: the result takes {total:,} bytes, {free:,} are free;"
            " nothing was written",
        )


def copy_companions(folder: Path, staged: Path) -> tuple[str, ...]:
    """Copy tokenizer, template and settings of generation to another folder; return their names."""
    copied = tuple(name for name in COMPANIONS if (folder / name).is_file())
    for name in copied:
        shutil.copyfile(folder / name, staged / name)
    # What a config.json asks for when text is generated has no place in the one that is written.
    config, apart = folder / "config.json", staged / "generation_config.json"
    if is_there(config) and not apart.exists():
        fields = read_object(config, refuse=CheckpointError)
        asked = generation_fields(fields)
        if (eos := fields.get("eos_token_id")) not in (None, 1, [1]):
            asked["eos_token_id"] = eos
        if asked:
            apart.write_text(json.dumps(asked, indent=2) + "\n")
    return copied
