"""`griffin evaluate --held-out`: any model on the documents that a recipe holds out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from griffin.cli.shared.held_out import held_out_table
from griffin.cli.shared.model_source import ModelSource, set_threads
from griffin.cli.shared.training import print_results

# The weights are read as they are stored, and computed with in float32, as after training.
_NOT_TAKEN = ("tokenizer", "revision", "dtype", "quantize", "screen", "state")


def evaluate_held_out(
    recipe: str, source: ModelSource, *, changes: Sequence[str], as_json: bool
) -> None:
    """Print the held-out bits per byte of a model, and those of gzip and xz on the same files."""
    from griffin.checkpoints.model_names import resolve
    from griffin.loading import check_device
    from griffin.train.bundled import find_recipe
    from griffin.train.export import measure
    from griffin.train.recipe import load_recipe
    from griffin.train.report import Reporter

    if given := [name for name in _NOT_TAKEN if getattr(source, name)]:
        raise click.UsageError(f"--held-out reads a folder as it is stored, without --{given[0]}")
    if source.adapter:
        raise click.UsageError("--held-out takes no --adapter; `griffin merge` writes a folder")
    set_threads(source.threads)
    device = source.device or "cpu"
    check_device(device)
    plan = load_recipe(find_recipe(recipe), list(changes))
    folder = Path(resolve(source.model))
    print_results(measure(plan, folder, Reporter(), device), as_json, held_out_table)
