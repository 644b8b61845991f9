"""A training run on disk: weights, optimiser, place in the data; it goes on bit for bit."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from griffin.train.files import file_digest, flush, put_in_place, write_json, writing
from griffin.train.scale.ranks import Ranks
from griffin.train.scale.sharded_files import read_tensors, write_tensors

_PREFIX, _PROGRESS, BEST = "step-", "progress.json", "best"
_FILES = "files"  # in the progress: the SHA-256 of each file of tensors
_ALONE = Ranks()
_NOTHING: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(kw_only=True)
class RunProgress:
    """Say how far the run of a recipe (its digest) has come: steps, rows and tokens done, seconds
    spent, the least `Validation.worth` so far (bits per byte where text is learned), running mean
    and variance of the loss, and how many of the steps were `without_targets`.

    owed: the log entry of the last step, if a stop came before its samples or held-out figures.
    """

    recipe: str
    step: int = 0
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float | None = None
    loss_mean: float = 0.0
    loss_variance: float = 0.0
    without_targets: int = 0
    owed: dict[str, Any] | None = None


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: RunProgress,
    keep: int,
    ranks: Ranks = _ALONE,
    beside: Mapping[str, Tensor] = _NOTHING,
) -> Path:
    """Write a checkpoint to `folder`/step-NNNNNNN beside the old ones, then drop all but the newest
    `keep`.

    It is written under another name, flushed to the disk, and renamed when complete: an interrupted
    write, a loss of power or a full disk (OSError) leaves the older checkpoints and nothing else.
    Every rank writes its parts of weights, moments and the tensors `beside` them (`write_tensors`),
    the writer all the rest.
    """
    final = folder / f"{_PREFIX}{progress.step:07d}"
    _write(final, {**_weights(model), **_moments(model, optimizer), **beside}, progress, ranks)
    if ranks.is_writer:
        prune(folder, keep)
    return final


def update_progress(path: Path, progress: RunProgress, ranks: Ranks = _ALONE) -> None:
    """Have a checkpoint of this step say what is owed to it now, or no longer; all ranks must call
    this. A kill leaves the old word or the new one."""
    with ranks.writer_first():
        if ranks.is_writer:
            kept, files = _read(path)
            if kept.owed != progress.owed:
                write_json(path / _PROGRESS, dataclasses.asdict(progress) | {_FILES: files})


def prune(folder: Path, keep: int) -> None:
    """Drop all checkpoints but the newest `keep`; the best stays."""
    for old in _checkpoints(folder)[:-keep]:
        _remove(old)


def save_best(folder: Path, model: nn.Module, progress: RunProgress, ranks: Ranks = _ALONE) -> Path:
    """Write a model's weights to `folder`/best, in place of those before, as `save_checkpoint`
    does."""
    final = folder / BEST
    _write(final, _weights(model), progress, ranks)
    return final


def _write(final: Path, tensors: dict[str, Tensor], progress: RunProgress, ranks: Ranks) -> None:
    part = _part(final)
    try:
        with ranks.writer_first():
            if ranks.is_writer:
                with writing(final):
                    final.parent.mkdir(parents=True, exist_ok=True)
                    shutil.rmtree(part, ignore_errors=True)
                    part.mkdir()
        write_tensors(part, tensors, ranks)
        with ranks.writer_first():
            if ranks.is_writer:
                with writing(final):
                    _complete(part, final, progress)
    finally:
        if ranks.is_writer:
            shutil.rmtree(part, ignore_errors=True)


def _complete(part: Path, final: Path, progress: RunProgress) -> None:
    """Give a folder that holds all tensors its progress, with what its files are known by, and its
    name."""
    path, files = part / _PROGRESS, sorted(part.glob("*.safetensors"))
    told = dataclasses.asdict(progress) | {_FILES: _digests(files)}
    path.write_text(json.dumps(told) + "\n", encoding="utf-8")
    flush(path)
    if final.exists():
        _remove(final)
    put_in_place(part, final)


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint in a folder, None if there is none."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def find_checkpoint(folder: Path, step: int | None = None, *, best: bool = False) -> Path:
    """Return the newest checkpoint in a folder, that of a step, or the best.

    ValueError, with those that are there, if it is not.
    """
    name = BEST if best else f"{_PREFIX}{step or 0:07d}"
    found = folder / name if best or step is not None else latest_checkpoint(folder)
    if found is not None and found.is_dir():
        return found
    steps = ", ".join(str(_step(path)) for path in _checkpoints(folder))
    there = [f"steps {steps}"] * bool(steps) + ["the best"] * (folder / BEST).is_dir()
    wanted = "best checkpoint" if best else "checkpoint" + f" of step {step}" * (step is not None)
    raise ValueError(f"{folder} has no {wanted}; there is {' and '.join(there) or 'none at all'}")


def holds_any(folder: Path) -> bool:
    """Say whether a folder has a checkpoint of any kind: the best, a damaged one, or a copy too."""
    return any(path.is_dir() and not path.name.startswith(".") for path in folder.glob("*"))


def newest_step(folder: Path) -> int:
    """Return how many steps the newest checkpoint in a folder has behind it, 0 if there is none."""
    found = latest_checkpoint(folder)
    return _step(found) if found else 0


def _step(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def resume(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    say: Callable[[str], object],
    ranks: Ranks = _ALONE,
    beside: Mapping[str, Tensor] = _NOTHING,
) -> RunProgress | None:
    """Go on from the newest checkpoint that can be read; None if a folder has none at all.

    Damaged ones that are newer are renamed and stay, and `say` is told of each; what killed saves
    left is removed. Raises ValueError, and changes nothing, if there are only damaged ones. All
    ranks go on from the same one, which any number of them may have written.
    beside: as for `save_checkpoint`; they are filled.
    """
    if ranks.is_writer:
        for left in folder.glob(".*.part"):
            shutil.rmtree(left, ignore_errors=True)
    damaged: list[tuple[Path, ValueError]] = []
    for path in reversed(_checkpoints(folder)):
        try:
            progress = load_checkpoint(path, model, optimizer, ranks, beside)
        except ValueError as error:
            damaged.append((path, error))
            continue
        for bad, error in damaged if ranks.is_writer else ():
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


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ranks: Ranks = _ALONE,
    beside: Mapping[str, Tensor] = _NOTHING,
) -> RunProgress:
    """Put weights and optimiser back as `save_checkpoint` saw them; ValueError if the files do not
    fit."""
    progress, wrong = None, f"{path} is not a readable checkpoint (on another rank)"
    try:
        progress = read_progress(path)
        if ranks.is_writer:
            check_files(path)
    except ValueError as error:
        progress, wrong = None, str(error)
    if ranks.any(progress is None) or progress is None:
        raise ValueError(wrong)
    for _, parameter in trained(model):
        optimizer.state[parameter] = empty_moments(parameter)
    read_tensors(path, {**_weights(model), **_moments(model, optimizer), **beside}, ranks)
    return progress


def read_progress(path: Path) -> RunProgress:
    """Return how far a run had come at a checkpoint; ValueError if it cannot be read."""
    return _read(path)[0]


def check_files(path: Path) -> None:
    """Raise ValueError if a file of a checkpoint is not as it was written.

    One that is gone is missed where its tensors are read. Checkpoints from before December 2026 do
    not say what was written.
    """
    _, written = _read(path)
    there = [path / name for name in written if (path / name).exists()]
    try:
        found = _digests(there)
    except OSError as error:
        raise ValueError(f"{path} is not a readable checkpoint ({error})") from error
    if wrong := [name for name, digest in found.items() if digest != written[name]]:
        raise ValueError(
            f"{path} is not a readable checkpoint ({wrong[0]} is not what was written: its SHA-256"
            " is another)"
        )


def _read(path: Path) -> tuple[RunProgress, dict[str, str]]:
    """Return a checkpoint's progress, and what its files are known by, as far as it says."""
    try:
        told = json.loads((path / _PROGRESS).read_text(encoding="utf-8"))
        files = {str(name): str(digest) for name, digest in told.pop(_FILES, {}).items()}
        return RunProgress(**told), files
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a readable checkpoint ({error})") from error


def _digests(files: list[Path]) -> dict[str, str]:
    """Return the SHA-256 of files by name; several are read at once."""
    with ThreadPoolExecutor(4) as pool:
        return dict(zip((path.name for path in files), pool.map(file_digest, files), strict=True))


def load_weights(path: Path, model: nn.Module) -> None:
    """Put a checkpoint's weights into a model, in one process; ValueError if they do not fit."""
    read_tensors(path, _weights(model), _ALONE)


def empty_moments(parameter: Tensor) -> dict[str, Tensor]:
    """Return what AdamW keeps of a parameter, as before its first step."""
    step = torch.zeros((), dtype=torch.float32, device=parameter.device)
    moments = (torch.zeros_like(parameter, requires_grad=False) for _ in range(2))
    return {"step": step, **dict(zip(("exp_avg", "exp_avg_sq"), moments, strict=True))}


def trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters that gradients are for, by name: what is optimised and kept."""
    return [(name, each) for name, each in model.named_parameters() if each.requires_grad]


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in trained(model)}


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.detach()
        for name, parameter in trained(model)
        for key, value in optimizer.state[parameter].items()
    }


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first; copies by other names are nobody's."""
    named = (path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())
    return sorted((p for p in named if p.name.removeprefix(_PREFIX).isdecimal()), key=_step)


def _part(final: Path) -> Path:
    return final.with_name(f".{final.name}.part")


def _remove(path: Path) -> None:
    """Remove a checkpoint; one that is half removed does not look like one."""
    part = path.with_name(f".{path.name}.old.part")
    shutil.rmtree(part, ignore_errors=True)
    path.rename(part)
    shutil.rmtree(part, ignore_errors=True)
