"""A training run on disk: weights, optimiser, place in the data; it goes on bit for bit."""

from __future__ import annotations

import dataclasses
import json
import shutil
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

    It is written under another name and renamed when complete: an interrupted write or a full disk
    (OSError) leaves the older checkpoints and nothing else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{_PREFIX}{progress.step:07d}"
    part = folder / f".{final.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    weights = {name: p.detach().contiguous() for name, p in model.named_parameters()}
    try:
        save_file(weights, part / _WEIGHTS)
        save_file(_moments(model, optimizer), part / _MOMENTS)
        (part / _PROGRESS).write_text(
            json.dumps(dataclasses.asdict(progress)) + "\n", encoding="utf-8"
        )
        shutil.rmtree(final, ignore_errors=True)
        part.replace(final)
    except SafetensorError as error:  # how the library reports a full disk
        raise OSError(f"could not write {part}: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for old in _checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint in a folder, None if there is none."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> RunProgress:
    """Put weights and optimiser back as `save_checkpoint` saw them; ValueError if the files do not
    fit."""
    try:
        progress = RunProgress(**json.loads((path / _PROGRESS).read_text(encoding="utf-8")))
        weights, moments = load_file(path / _WEIGHTS), load_file(path / _MOMENTS)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ValueError(
            f"{path} is not a readable checkpoint ({error}); delete this folder to go on from an"
            " older one"
        ) from error

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
    """Return the complete checkpoints in a folder, oldest first."""
    return sorted(path.parent for path in folder.glob(f"{_PREFIX}*/{_PROGRESS}"))
