"""Checkpoint -> model and back."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from griffin.checkpoints.carrier import Carrier
from griffin.checkpoints.checkpoint import Checkpoint
from griffin.checkpoints.config_json import to_config_json
from griffin.checkpoints.errors import CheckpointError, CheckpointWarning, disk_errors
from griffin.checkpoints.names import matrix_names
from griffin.checkpoints.opening import open_checkpoint
from griffin.checkpoints.progress import Progress
from griffin.checkpoints.quantization_config import KEY, Quantization
from griffin.checkpoints.safetensors_files import INDEX, Planned, write_safetensors
from griffin.checkpoints.staging import staged_folder
from griffin.model import Griffin, GriffinConfig
from griffin.model.packed import Screen, head_format, install, packed_format, screen_format
from griffin.quant import add_screen, get_format
from griffin.quant.screen import check_screen
from griffin.quant.storage import Packed, split, unmap, unpack

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def load_model(
    path_or_repo: str | Path | Checkpoint,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str = "cpu",
    config: GriffinConfig | Mapping[str, Any] | None = None,
    *,
    revision: str | None = None,
    check: bool = False,
    quantize: str | None = None,
    screen: bool | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Griffin:
    """Load a model from a folder, an archive, a Hub repository or an opened `Checkpoint`.

    dtype:  the weights' type ("bfloat16" or torch.bfloat16); as stored if omitted, and where they
            are stored in several types, in `Checkpoint.own_dtype`.
    config: what the files do not say, see `open`.
    check:  read every weight now and refuse NaN and infinite values. Off, because on the CPU in the
            stored type the weights are mapped, not read: pages arrive when the model first uses
            them.
    quantize: a format of griffin.quant.FORMATS, "int8" or "int4": every matrix is rounded to it as
            it is read. For a checkpoint that is quantized already it may only be its own format.
    screen: give the head a preview (`griffin.quant.add_screen`), made now if none is stored; False
            leaves a stored one out. If omitted, a stored one is taken where it serves, on the CPU.
    progress: called before each tensor is read, with the bytes read so far.
    The dtype of a quantized checkpoint is that of its other weights and of what goes from layer to
    layer.
    Weights occupy memory once: what another device gets goes there tensor by tensor. Raises
    CheckpointError (a ValueError) for files that do not fit together.
    """
    checkpoint = (
        path_or_repo
        if isinstance(path_or_repo, Checkpoint)
        else open_checkpoint(path_or_repo, config=config, revision=revision)
    )
    for note in checkpoint.notes:
        warnings.warn(note, CheckpointWarning, stacklevel=2)
    wanted = checkpoint.own_dtype if dtype is None else parse_dtype(dtype)
    place = torch.device(device)
    format = packing(checkpoint, quantize)
    matrices = matrix_names(checkpoint.config) if format is not None else []
    if screen:
        check_screen(place, format is not None)
    with torch.device("meta"):
        model = Griffin(checkpoint.config)
    carrier, done, total = Carrier(place), 0, checkpoint.nbytes

    def tell(name: str) -> None:
        nonlocal done
        if progress is not None:
            progress(Progress(done, total, name))
        done += checkpoint.size(name)

    packed: dict[str, Tensor] = {}
    for name in matrices:
        assert format is not None
        tell(name)
        matrix = read_packed(checkpoint, name, format, check)
        if checkpoint.quantization and place.type == "cpu":
            matrix = matrix.unmapped()
            checkpoint.release()
        parts = [t if t is None else carrier.bring(t, t.dtype) for t in matrix[:2]]
        matrix = matrix._replace(data=parts[0], scale=parts[1])
        install(model, name.removesuffix(".weight"), matrix, wanted)
        packed |= {name + part: tensor for part, tensor in split(matrix).items()}
    tensors = dict(packed)
    for name in checkpoint.names():
        if name in matrices:
            continue
        tell(name)
        # Beside packed matrices there is little: no reason to keep a whole file mapped for it.
        stays = format is None and place.type == "cpu" and wanted == checkpoint.dtype(name)
        tensor = checkpoint.read(name) if stays else checkpoint.read_apart(name)
        if check:
            checkpoint.check_finite(name, tensor)
        tensor = tensor if stays else carrier.bring(tensor, wanted)
        tensors[name] = tensor if format is None else unmap(tensor)
    preview = checkpoint.preview() if screen is not False and place.type == "cpu" else None
    preview = preview if preview is None else preview.unmapped()
    checkpoint.release()
    # Parameters are replaced, not filled: a mapped tensor stays mapped.
    model.load_state_dict(
        {
            name: tensor if name in packed else nn.Parameter(tensor)
            for name, tensor in tensors.items()
        },
        strict=True,
        assign=True,
    )
    if preview is not None:
        model.screen = Screen(preview)
    elif screen:
        add_screen(model)
    return model


def packing(checkpoint: Checkpoint, quantize: str | None) -> str | None:
    """Return the format of a model's matrices: the checkpoint's own, or the one asked for.

    Raises ValueError for a format that does not exist, and for one other than the checkpoint's.
    """
    if quantize is not None:
        get_format(quantize)
    own = checkpoint.quantization.format if checkpoint.quantization else None
    if own and quantize not in (None, own):
        raise CheckpointError(
            f"{checkpoint.folder} is {own} already; for {quantize} quantize the original weights"
        )
    return own or quantize


def read_packed(checkpoint: Checkpoint, name: str, format: str, check: bool) -> Packed:
    """Return a matrix in a format: as it lies, or rounded now. check: refuse NaN and infinite
    values.

    What is rounded now to a grid is always checked: one NaN would spoil its whole group unseen.
    """
    if checkpoint.quantization:
        packed = checkpoint.packed(name)
        if check:
            checkpoint.check_finite(name, unpack(packed, torch.bfloat16))
        return packed
    tensor = checkpoint.read_apart(name)
    if check or get_format(format).grid is not None:
        checkpoint.check_finite(name, tensor)
    return get_format(format).quantize(tensor)


def save_model(
    model: Griffin, path: str | Path, max_shard_size: int | str = "5GB", *, calibrated: bool = False
) -> None:
    """Write a model as a Hugging Face folder: config.json, safetensors, shards of `max_shard_size`.

    What transformers' config cannot express (`fits_huggingface` lists it) is written with the same
    tensors and a config.json of our own, model_type "griffin"; a quantized model is written packed,
    as it is. Files of the same names in `path` are replaced, stale shards removed, all else (a
    tokenizer) left alone. calibrated: what a quantized model's config.json shall say. Raises
    OSError where the disk is full.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; expected a folder to save into")
    state, format = model.state_dict(), packed_format(model)
    plan = {name: Planned(tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}
    with disk_errors(folder), staged_folder(folder) as staged:
        write_safetensors(staged, plan, state.__getitem__, parse_size(max_shard_size))
        fields = to_config_json(model.config, model.dtype)
        if format:
            own = head_format(model), screen_format(model)
            fields[KEY] = Quantization(format, calibrated, *own).to_json()
        (staged / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
        written = {entry.name for entry in staged.iterdir()}
    # A reader prefers an index: one left from a save of another size would send it to old shards.
    for file in (folder / INDEX, *folder.glob("model*.safetensors")):
        if file.name not in written and re.fullmatch(
            r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?", file.name
        ):
            file.unlink(missing_ok=True)


def parse_size(size: int | str) -> int:
    """Return a size in bytes: a number, or a string such as "5GB" (10^9) or "512MiB" (2^20)."""
    if isinstance(size, int):
        number, unit = size, ""
    else:
        match = re.fullmatch(r"\s*(\d+)\s*([KMG]I?B)?\s*", size.upper())
        if match is None:
            raise ValueError(f"a size is a number of bytes or like '5GB' or '512MiB', not {size!r}")
        number, unit = int(match[1]), match[2] or ""
    if number < 1:
        raise ValueError(f"a size must be at least 1 byte, not {size!r}")
    return number * _UNITS[unit]


def parse_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """Return a floating-point torch.dtype from itself or its name ("bfloat16", "float32", ...)."""
    allowed = ("bfloat16", "float32", "float16", "float64")
    short = {
        "bf16": "bfloat16",
        "fp32": "float32",
        "fp16": "float16",
        "f32": "float32",
        "f16": "float16",
    }
    name = str(dtype).removeprefix("torch.")
    name = short.get(name, name)
    if name not in allowed:
        raise ValueError(f"dtype must be one of {', '.join(allowed)}, not {dtype!r}")
    return getattr(torch, name)
