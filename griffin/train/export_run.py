"""A checkpoint of a run as a model folder, whatever the run is doing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch

from griffin.checkpoints import copy_companions, save_model
from griffin.checkpoints.staging import staged_folder
from griffin.model import Griffin, GriffinConfig
from griffin.train.checkpoint import (
    RunProgress,
    check_files,
    find_checkpoint,
    load_weights,
    read_progress,
)
from griffin.train.files import no_run, writing
from griffin.train.folder import CHECKPOINTS


@dataclasses.dataclass(frozen=True)
class Exported:
    """Say what was written: the checkpoint that it comes from, and how far the run was then."""

    checkpoint: Path
    progress: RunProgress
    parameters: int


def export_run(
    run: Path,
    out: Path,
    step: int | None = None,
    *,
    best: bool = False,
    dtype: torch.dtype = torch.bfloat16,
) -> Exported:
    """Write a checkpoint of a run's folder as a model in Hugging Face's layout, tokenizer included.

    step, best: which one; the newest if neither is given. dtype: the weights' type there.
    `out` is there in the end, whole, or not at all. Raises ValueError if `run` holds no such
    checkpoint or a damaged one, and if `out` has something in it; OSError if the disk is full.
    """
    config = read_config(run)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists already; name a new folder, or an empty one")
    found = find_checkpoint(run / CHECKPOINTS, step, best=best)
    progress = read_progress(found)
    check_files(found)
    with torch.device("meta"):
        model = Griffin(config)
    model.to_empty(device="cpu")
    load_weights(found, model)
    with writing(out), staged_folder(out) as staged:  # weights without a tokenizer are no model
        save_model(model.to(dtype), staged)
        copy_companions(run, staged)
    return Exported(found, progress, sum(p.numel() for p in model.parameters()))


def read_config(run: Path) -> GriffinConfig:
    """Return the shape of the model that a run's folder trains; ValueError if it is none."""
    path = run / "recipe.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return GriffinConfig.from_dict(kept.get("model") or kept["recipe"]["model"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise no_run(path, error) from error
