"""A training run on disk: weights, optimiser, place in the data; it goes on bit for bit."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

_PREFIX = "step-"
_WEIGHTS, _MOMENTS, _PROGRESS = "weights.safetensors", "optimizer.safetensors", "progress.json"


@dataclass(kw_only=True)
class RunProgress:
    """Say how far the run of a recipe (its digest) has come: steps, rows and tokens done, seconds
    spent."""

    recipe: str
    step: int = 0
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: RunProgress,
    keep: int,
) -> Path:
    """Write a checkpoint to `folder`/step-NNNNNNN beside the old ones, then drop all but the newest
    `keep`.

    It is written under another name, flushed to the disk, and renamed when complete: an interrupted
    write, a loss of power or a full disk (OSError) leaves the older checkpoints and nothing else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{_PREFIX}{progress.step:07d}"
    part = _part(final)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    weights = {name: p.detach().contiguous() for name, p in model.named_parameters()}
    try:
        save_file(weights, part / _WEIGHTS)
        save_file(_moments(model, optimizer), part / _MOMENTS)
        (part / _PROGRESS).write_text(
            json.dumps(dataclasses.asdict(progress)) + "\n", encoding="utf-8"
        )
        for path in (*part.iterdir(), part):
            _flush(path)
        if final.exists():
            _remove(final)
        part.replace(final)
        _flush(folder)
    except SafetensorError as error:  # how the library reports a full disk
        raise OSError(f"could not write {part}: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for old in _checkpoints(folder)[:-keep]:
        _remove(old)
    return final


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint in a folder, None if there is none."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def newest_step(folder: Path) -> int:
    """Return how many steps the newest checkpoint in a folder has behind it, 0 if there is none."""
    found = latest_checkpoint(folder)
    return int(found.name.removeprefix(_PREFIX)) if found else 0


def resume(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    say: Callable[[str], object],
) -> RunProgress | None:
    """Go on from the newest checkpoint that can be read; None if a folder has none at all.

    Damaged ones that are newer are renamed and stay, and `say` is told of each; what killed saves
    left is removed. Raises ValueError, and changes nothing, if there are only damaged ones.
    """
    for left in folder.glob(f".{_PREFIX}*.part"):
        shutil.rmtree(left, ignore_errors=True)
    damaged: list[tuple[Path, ValueError]] = []
    for path in reversed(_checkpoints(folder)):
        try:
            progress = load_checkpoint(path, model, optimizer)
        except ValueError as error:
            damaged.append((path, error))
            continue
        for bad, error in damaged:
            aside = bad.with_name(f"damaged-{bad.name}")
            shutil.rmtree(aside, ignore_errors=True)
            bad.rename(aside)
            say(f"{error}; kept as {aside.name}")
        say(f"going on from {path}")
        return progress
    if damaged:
        raise ValueError(
            "; ".join(str(error) for _, error in damaged)
            + f". No other is left: remove {folder} to begin anew, or choose another --out"
        )
    return None


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> RunProgress:
    """Put weights and optimiser back as `save_checkpoint` saw them; ValueError if the files do not
    fit."""
    try:
        progress = RunProgress(**json.loads((path / _PROGRESS).read_text(encoding="utf-8")))
        weights, moments = load_file(path / _WEIGHTS), load_file(path / _MOMENTS)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ValueError(f"{path} is not a readable checkpoint ({error})") from error

    def take(
        tensors: dict[str, Tensor], name: str, shape: torch.Size, device: torch.device
    ) -> Tensor:
        found = tensors.get(name)
        if found is None or found.shape != shape:
            seen = "nothing" if found is None else tuple(found.shape)
            raise ValueError(f"{path}: {name} should have shape {tuple(shape)}, found {seen}")
        return found.to(device)

    for name, parameter in model.named_parameters():
        shape, device = parameter.shape, parameter.device
        with torch.no_grad():
            parameter.copy_(take(weights, name, shape, device))
        optimizer.state[parameter] = {
            "step": take(moments, f"{name}.step", torch.Size(), device),
            "exp_avg": take(moments, f"{name}.exp_avg", shape, device),
            "exp_avg_sq": take(moments, f"{name}.exp_avg_sq", shape, device),
        }
    return progress


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{name}.{key}"] = value.detach().contiguous()
    return tensors


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def _part(final: Path) -> Path:
    return final.with_name(f".{final.name}.part")


def _remove(path: Path) -> None:
    """Remove a checkpoint; one that is half removed does not look like one."""
    part = path.with_name(f".{path.name}.old.part")
    shutil.rmtree(part, ignore_errors=True)
    path.rename(part)
    shutil.rmtree(part, ignore_errors=True)


def _flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before going on."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
