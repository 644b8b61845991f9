"""A checkpoint in smaller weights: read from any layout, written packed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from griffin.checkpoints.checkpoint import Checkpoint
from griffin.checkpoints.config_json import to_config_json
from griffin.checkpoints.convert import Converted, check_room, copy_companions
from griffin.checkpoints.errors import CheckpointError, disk_errors
from griffin.checkpoints.models import load_model, parse_size, read_packed
from griffin.checkpoints.names import head_name
from griffin.checkpoints.opening import open_checkpoint
from griffin.checkpoints.progress import Progress
from griffin.checkpoints.quantization_config import KEY, Quantization
from griffin.checkpoints.quantized import PREVIEW, packed_plan
from griffin.checkpoints.safetensors_files import Planned, write_safetensors
from griffin.checkpoints.staging import staged_folder
from griffin.model import Griffin, GriffinConfig
from griffin.quant import add_screen, calibrate, get_format
from griffin.quant.screen import FORMAT, preview_of
from griffin.quant.storage import split


def quantize(
    src: str | Path | Checkpoint,
    dst: str | Path,
    format: str,
    sample: Tensor | None = None,
    progress: Callable[[Progress], None] | None = None,
    *,
    head: str | None = None,
    screen: bool = False,
    config: GriffinConfig | Mapping[str, Any] | None = None,
    revision: str | None = None,
    max_shard_size: int | str = "5GB",
) -> Converted:
    """Write a checkpoint with every matrix rounded to a format of griffin.quant.FORMATS.

    src:    what `open` accepts, or an opened checkpoint; not one that is quantized already.
    dst:    a folder that does not exist yet or is empty. Tokenizer files beside the source travel
            along.
    sample: (R, T) token ids of R texts to calibrate with (GPTQ): the source is mapped and the
            result held. Without them each weight goes to the nearest value, and memory stays at a
            few tensors.
    head:   another format for the head, which is the embedding too where the two are tied.
    screen: store a preview of the head beside it, which a model on a CPU reads first
            (`griffin.quant.add_screen`).
    Embedding and head are matrices too; RG-LRU parameters, norms, convolution and biases stay as
    they are. NaN and infinite values are refused. The result appears whole or not at all. Raises
    CheckpointError or ValueError for what cannot be done, OSError where the disk is full.
    """
    for name in (format, head or format):
        get_format(name)
    own_head, preview = None if head == format else head, FORMAT if screen else None
    quantization = Quantization(format, sample is not None, own_head, preview)
    shard_size = parse_size(max_shard_size)
    target = Path(dst).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} exists already; expected a new path or an empty folder")
    source = (
        src
        if isinstance(src, Checkpoint)
        else open_checkpoint(src, config=config, revision=revision)
    )
    if source.quantization:
        raise CheckpointError(
            f"{source.folder} is {source.quantization.format} already; quantize the original"
            " weights"
        )
    formats = quantization.formats(source.config)
    plan = _plan(source, formats)
    if preview is not None:
        parts = packed_plan(source.shape(head_name(source.config)), preview)
        plan |= {PREVIEW + part: planned for part, planned in parts.items()}
    total = sum(planned.size for planned in plan.values())
    check_room(target, total)
    read = (
        _streamed(source, formats)
        if sample is None
        else _calibrated(source, quantization, sample, progress)
    )
    done = 0

    def reading(name: str) -> Tensor:
        nonlocal done
        if progress is not None and sample is None:
            progress(Progress(done, total, name))
        done += plan[name].size
        return read(name)

    copied: tuple[str, ...] = ()
    with disk_errors(target), staged_folder(target) as staged:
        write_safetensors(staged, plan, reading, shard_size)
        fields = to_config_json(source.config, source.own_dtype)
        fields[KEY] = quantization.to_json()
        (staged / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
        if source.layout != "random":
            copied = copy_companions(source.folder, staged)
    if progress is not None:
        progress(Progress(total, total, ""))
    notes = (
        *source.notes,
        "transformers cannot load the result, griffin can: the weights are packed",
    )
    return Converted(target, "huggingface", source.config, len(plan), total, notes, copied)


def _plan(source: Checkpoint, formats: Mapping[str, str]) -> dict[str, Planned]:
    plan: dict[str, Planned] = {}
    for name in source.names():
        shape = source.shape(name)
        if name in formats:
            parts = packed_plan(shape, formats[name])
            plan |= {name + part: planned for part, planned in parts.items()}
        else:
            plan[name] = Planned(shape, source.dtype(name))
    return plan


def _streamed(source: Checkpoint, formats: Mapping[str, str]) -> Callable[[str], Tensor]:
    """Return what reads a planned tensor: a matrix is rounded once, what is not asked for yet is
    kept."""
    kept: dict[str, Tensor] = {}
    matrix_of = {
        name + part: name
        for name, format in formats.items()
        for part in packed_plan(source.shape(name), format)
    }

    def read(name: str) -> Tensor:
        if name in kept:
            return kept.pop(name)
        if name in matrix_of:
            matrix = matrix_of[name]
            made = read_packed(source, matrix, formats[matrix], check=True)
        elif name.startswith(PREVIEW):
            matrix, head = PREVIEW, head_name(source.config)
            made = preview_of(read_packed(source, head, formats[head], check=True))
        else:
            tensor = source.read_apart(name)
            source.check_finite(name, tensor)
            return tensor
        kept.update({matrix + part: tensor for part, tensor in split(made).items()})
        return kept.pop(name)

    return read


def _calibrated(
    source: Checkpoint,
    how: Quantization,
    sample: Tensor,
    progress: Callable[[Progress], None] | None,
) -> Callable[[str], Tensor]:
    model: Griffin = load_model(source, check=True)

    def advance(done: int, layers: int) -> None:
        if progress is not None:
            progress(Progress(done, layers, f"layer {done} of {layers}"))

    calibrate(model, sample, how.format, advance, head=how.head)
    if how.screen is not None:
        add_screen(model)
    return model.state_dict().__getitem__
