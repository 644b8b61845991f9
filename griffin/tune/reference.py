"""What the reference thinks of all pairs: computed once, kept beside the data of the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from griffin.adapters import Adapter, adapt, check_base, open_adapter
from griffin.model import Griffin
from griffin.train.files import put_in_place
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.tune.learner import load_base, make_learner
from griffin.tune.pairs import Pairs, log_probabilities

_FILE, _KEY = "reference.safetensors", "reference"


class Reference(NamedTuple):
    """Log-probabilities of both answers of each pair, (pairs, 2) float32, on both sides of the
    split, in the order of `Pairs.listed`."""

    train: Tensor
    held_out: Tensor


def find_reference(
    recipe: Recipe,
    folder: Path,
    train: Pairs,
    held_out: Pairs,
    device: torch.device,
    dtype: torch.dtype,
    reporter: Reporter,
    check: Callable[[], object],
) -> Reference:
    """Return what the recipe's reference thinks of all pairs.

    It is the checkpoint that the run begins with, read anew, with `tune.reference` if it names an
    adapter: nothing that is trained, and no dropout. Its numbers are in the folder, with a digest
    of weights, adapter, types and pairs; where that is another, or there are none, they are
    computed and kept. check: called between batches; what it raises ends the work, and nothing is
    kept. Raises ValueError as `reference_adapter` does.
    """
    adapter = reference_adapter(recipe)
    path, digest = folder / _FILE, _digest(recipe, adapter, train, held_out, dtype)
    if (kept := _read(path, digest)) is not None:
        return kept
    if path.exists():
        reporter.say(f"{path} is of another reference: computed anew")
    model = _model(recipe, adapter, device)
    total = train.tokens + held_out.tokens
    with reporter.preparing("asking the reference", total) as show, torch.no_grad():
        found = [
            _measure(model, pairs, recipe.train.rows, dtype, check, show)
            for pairs in (train, held_out)
        ]
    reference = Reference(*found)
    part = path.with_name(path.name + ".part")
    save_file(reference._asdict(), part, {_KEY: digest})
    put_in_place(part, path)
    return reference


def reference_adapter(recipe: Recipe) -> Adapter | None:
    """Return the adapter that a recipe compares with, None for the checkpoint as it is.

    Raises ValueError if it is not one, or does not fit the model, or was trained on another.
    """
    assert recipe.tune is not None
    if not recipe.tune.reference:
        return None
    place = recipe.folder / Path(recipe.tune.reference).expanduser()
    adapter = open_adapter(place)
    adapter.check(recipe.model)
    check_base([adapter], recipe.open_base(), recipe.base)
    return adapter


def _model(recipe: Recipe, adapter: Adapter | None, device: torch.device) -> Griffin:
    assert recipe.tune is not None
    if recipe.tune.trains == "full":
        return make_learner(recipe, device).requires_grad_(False).eval()
    model = load_base(recipe, device).eval()
    return model if adapter is None else adapt(model, adapter, torch.float32)


def _measure(
    model: Griffin,
    pairs: Pairs,
    rows: int,
    dtype: torch.dtype,
    check: Callable[[], object],
    show: Callable[[int, int], None],
) -> Tensor:
    found = torch.zeros(len(pairs), 2)
    for first in range(0, len(pairs), rows):
        check()
        part = [pairs.listed(n) for n in range(first, min(first + rows, len(pairs)))]
        found[first : first + rows] = log_probabilities(model, part, dtype).cpu()
        show(sum(pair.tokens for pair in part), 2 * len(part))
    return found


def _digest(
    recipe: Recipe, adapter: Adapter | None, train: Pairs, held_out: Pairs, dtype: torch.dtype
) -> str:
    tune = recipe.tune
    assert tune is not None
    kind = recipe.train.weights if tune.trains == "full" else tune.base
    parts = [
        *(1, recipe.open_base().digest(), kind, str(dtype)),
        adapter.digest() if adapter is not None else "",
        *(train.digest(), held_out.digest()),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read(path: Path, digest: str) -> Reference | None:
    """Return what a file holds, if it is of this reference and whole."""
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get(_KEY) != digest:
                return None
            return Reference(*(file.get_tensor(name) for name in Reference._fields))
    except (OSError, SafetensorError):
        return None
