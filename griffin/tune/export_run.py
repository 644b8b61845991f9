"""A checkpoint of a tuned run as an adapter or a tuned state, whatever the run is doing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from griffin import checkpoints
from griffin.adapters import Adapter, parameter_name, save_adapter, save_tuned_state
from griffin.adapters.adapter import expected
from griffin.model import TunedState
from griffin.model.tuned_state import tuned_shapes
from griffin.train.checkpoint import check_files, find_checkpoint, read_progress
from griffin.train.export_run import Exported, read_config
from griffin.train.files import no_run
from griffin.train.folder import CHECKPOINTS
from griffin.train.recipe import TuneRecipe
from griffin.train.scale.ranks import Ranks
from griffin.train.scale.sharded_files import read_tensors
from griffin.tune.export import read_mark
from griffin.tune.learner import ADAPTER, base_dtype, lora_config


def read_tune(run: Path) -> tuple[str, TuneRecipe] | None:
    """Return the base and [tune] of a run's folder, None for a run that does not tune."""
    path = run / "recipe.json"
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))["recipe"]
        told = recipe.get("tune")
        if told is None:
            return None
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}
        return str(recipe["from"]), TuneRecipe(**given)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise no_run(path, error) from error


def export_adapter(
    run: Path, out: Path, step: int | None = None, *, best: bool = False
) -> Exported:
    """Write the adapter of a checkpoint of a tuned run to a new folder, in PEFT's files.

    step, best: which one; the newest if neither is given. Raises ValueError if `run` trains no
    adapter or holds no such checkpoint, and if `out` has something in it.
    """
    told = read_tune(run)
    if told is None or told[1].trains != "lora":
        raise ValueError(f"{run} trains no adapter")
    base, tune = told
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists already; name a new folder, or an empty one")
    found = find_checkpoint(run / CHECKPOINTS, step, best=best)
    progress, config = read_progress(found), lora_config(tune)
    check_files(found)
    tensors = {key: torch.empty(size) for key, size in expected(config, read_config(run)).items()}
    read_tensors(found, {parameter_name(key): tensor for key, tensor in tensors.items()}, Ranks())
    save_adapter(Adapter(ADAPTER, config, tensors, read_mark(run)), out, base)
    return Exported(found, progress, sum(tensor.numel() for tensor in tensors.values()))


def export_state(run: Path, out: Path, step: int | None = None, *, best: bool = False) -> Exported:
    """Write the state of a checkpoint of a tuned run to a new file, for the model it is learnt on.

    step, best: as for `export_adapter`. That model is opened by the name that the recipe has for
    it, from where we are. Raises ValueError if `run` learns no state or holds no such checkpoint,
    if `out` is there already, and if the model is not.
    """
    told = read_tune(run)
    if told is None or told[1].trains != "state":
        raise ValueError(f"{run} learns no state")
    base, tune = told
    if out.exists():
        raise ValueError(f"{out} exists already; name a new file")
    found = find_checkpoint(run / CHECKPOINTS, step, best=best)
    progress, config, source = read_progress(found), read_config(run), checkpoints.open(base)
    check_files(found)
    dtype = base_dtype(tune, source)
    wide = torch.promote_types(dtype, torch.float32)
    shapes = tuned_shapes(config, tune.keys).items()
    tensors: dict[str, Any] = {name: torch.empty(shape, dtype=wide) for name, shape in shapes}
    read_tensors(found, {name: each for name, each in tensors.items() if each.numel()}, Ranks())
    tuned = TunedState(config=config, weights=source.digest(), name=base, **tensors).to(dtype)
    save_tuned_state(tuned, out)
    return Exported(found, progress, sum(tensor.numel() for tensor in tensors.values()))
