"""`griffin bench train`: what a training step costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from griffin.model import GriffinConfig

_POSITIVE = click.IntRange(1)


@click.command("train")
@click.option(
    "--preset", default="nano", show_default=True, help="A published shape, as in a recipe."
)
@click.option("--width", type=_POSITIVE, help="Another width: MLPs thrice as wide, heads of 128.")
@click.option("--depth", type=_POSITIVE, help="Another number of blocks, one in three attention.")
@click.option("--window", type=_POSITIVE, help="Another attention window.")
@click.option("--vocab", type=_POSITIVE, help="Another number of ids.")
@click.option("--rows", type=_POSITIVE, default=4, show_default=True, help="Rows of a step.")
@click.option("--length", type=_POSITIVE, default=1024, show_default=True, help="Tokens of a row.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Of the products.",
)
@click.option(
    "--checkpoint",
    default="none",
    show_default=True,
    metavar="none|blocks|N",
    help="What is kept for the backward pass, as in a recipe.",
)
@click.option("--threads", type=_POSITIVE, help="CPU threads [default: one for each CPU].")
@click.option("--rounds", type=_POSITIVE, default=3, show_default=True, help="Steps to time.")
@click.option("--force", is_flag=True, help="Try it also where memory is said not to suffice.")
@click.option("--profile", is_flag=True, help="Say where the time of a step goes.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep the report: command, commit, machine, results.",
)
def train(
    preset: str,
    width: int | None,
    depth: int | None,
    window: int | None,
    vocab: int | None,
    checkpoint: str,
    threads: int | None,
    rounds: int,
    force: bool,
    profile: bool,
    as_json: bool,
    out: Path | None,
    **setting: Any,
) -> None:
    """Train on random rows: tokens/s, memory, and bytes kept for the backward pass.

    The limit is what this machine's matrix products allow, measured in the same run: 6 operations a
    weight and token, and those of attention. What is computed again to save memory is not counted.
    """
    from griffin.bench import machine
    from griffin.bench.measurement import Report
    from griffin.bench.training import Setting, griffin_learner, measure
    from griffin.bench.work import matrix_shapes
    from griffin.cli.bench.report import deliver
    from griffin.cli.shared.train_plan import device_bytes
    from griffin.train.allocator import return_large_blocks
    from griffin.train.plan import check_memory
    from griffin.train.recipe import Recipe, TrainRecipe

    config = shaped(preset, width, depth, window, vocab)
    kept = int(checkpoint) if checkpoint.isdecimal() else checkpoint
    asked = {key: setting[key] for key in ("rows", "length", "dtype")}
    recipe = TrainRecipe(steps=1, checkpoint=kept, **asked)
    if not force:
        check_memory(Recipe(model=config, train=recipe), device_bytes("cpu"))
    report = Report(command=machine.command(), commit=machine.commit(), machine=machine.describe())
    setting["threads"] = threads or machine.cores()
    if recipe.keep_every:
        return_large_blocks()  # as a run does
    (found,) = measure(
        report,
        [griffin_learner(config, setting["dtype"], recipe.keep_every)],
        Setting(**setting),
        matrix_shapes(config),
        config.vocab_size,
        rounds,
        profile=profile,
    )
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    deliver(report, as_json, out)


def shaped(
    preset: str,
    width: int | None = None,
    depth: int | None = None,
    window: int | None = None,
    vocab: int | None = None,
) -> GriffinConfig:
    """Return a preset with another shape; ValueError for what no model has."""
    from griffin.model import GriffinConfig
    from griffin.model.config import GRIFFIN_PATTERN, block_pattern

    changes: dict[str, Any] = {}
    if width is not None:
        heads = max(1, width // 128)
        changes |= dict.fromkeys(("width", "lru_width"), width) | {"mlp_width": 3 * width}
        changes |= dict.fromkeys(("num_heads", "num_gate_blocks"), heads)
    if depth is not None:
        changes["block_types"] = block_pattern(depth, GRIFFIN_PATTERN)
    if window is not None:
        changes["attention_window_size"] = window
    if vocab is not None:
        changes["vocab_size"] = vocab
    return GriffinConfig.preset(preset).replace(**changes)
