"""What a training run takes on this machine: memory, and the products' rate for its speed."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from griffin.cli.shared.devices import memory_bytes
from griffin.cli.shared.sizes import binary

if TYPE_CHECKING:
    from griffin.train.recipe import Recipe
    from griffin.tune.budget import RunBudget

_ROWS = 4096  # of the products whose rate is measured, at most
_OPERATIONS, _FEWEST = 2e10, 256  # of all of them together; with large matrices fewer rows do
_SECONDS = 0.4
_TRIED = 64  # rows of the product that is tried in both types: where it is slow, it is soon known


def device_bytes(device: str) -> int:
    """Return the memory that one training process may have on a device.

    Ranks have a GPU each; on the CPU those of a machine share its memory.
    """
    import torch

    if torch.device(device).type == "cpu":
        return memory_bytes() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return torch.cuda.get_device_properties(device).total_memory


def matrix_limit(recipe: Recipe, rate: float | None = None) -> tuple[float, float]:
    """Return operations a second of matrix products, and the tokens/s if a step were nothing else.

    rate: of the products; by default it is measured, at the model's shapes, in the type that the
    recipe multiplies in, on the CPU with torch's threads. Where weights are frozen, no products are
    spent on their gradients; there, what is computed twice is counted.
    """
    import torch

    from griffin.bench.rates import matrix_rate
    from griffin.bench.work import matrix_shapes, trained_weights, training_operations
    from griffin.model import Griffin

    train = recipe.train
    if rate is None:
        shapes = matrix_shapes(recipe.model)
        enough = max(_FEWEST, int(_OPERATIONS / sum(2 * out * width for out, width, _ in shapes)))
        rows = min(train.rows * train.length, _ROWS, enough)
        rate = matrix_rate(shapes, rows, train.dtype, _SECONDS)
    with torch.device("meta"):
        weights = trained_weights(Griffin(recipe.model))
    operations = training_operations(recipe.model, weights, train.length)
    if recipe.tune is not None and recipe.tune.trains != "full":
        operations *= (3 if train.keep_every else 2) / 3  # forward and back, and forward once more
    return rate, rate / operations


def slow_bfloat16(recipe: Recipe) -> str | None:
    """Say that float32 would be faster than the bfloat16 that a recipe asks for, if it would be.

    A processor without instructions for bfloat16 products has torch do them by others, ten times
    slower. Measured on one thread of the CPU, by the model's widest product; None if it is not so.
    """
    import torch

    from griffin.bench.rates import matrix_rate

    train, model = recipe.train, recipe.model
    if train.dtype != "bfloat16":
        return None
    shape = (model.mlp_width, model.width, 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # where others work too, threads that wait for each other say nothing
    try:
        narrow, wide = (matrix_rate([shape], _TRIED, d, 0.1) for d in ("bfloat16", "float32"))
    finally:
        torch.set_num_threads(threads)
    if narrow > wide / 2:
        return None
    faster = "train.dtype = 'float32' is faster"
    if train.weights == "bfloat16":
        faster = "with memory for it, train.weights = train.dtype = 'float32' is faster"
    return (
        f"bfloat16 products run at {narrow / 1e9:,.3g} billion operations/s a thread here, float32"
        f" at {wide / 1e9:,.3g}: {faster}"
    )


def print_train_plan(
    name: str,
    recipe: Recipe,
    there: int,
    rate: float | None,
    measure: bool,
    as_json: bool,
    budget: RunBudget | None = None,
) -> None:
    """Say what a run takes: bytes of each kind, and the most tokens/s that products allow.

    there: the memory it may have. rate: as for `matrix_limit`, measured if omitted and `measure`.
    budget: of a recipe with [tune], where its data was read.
    """
    beside, on_top = list[tuple[str, int, str]](), ""
    if recipe.tune is not None:
        from griffin.tune.plan import plan_tuning

        plan = plan_tuning(recipe, budget=budget)
        beside = [
            ("beside them", plan.twin_bytes, "the model as it was, and an anchor"),
            ("answers", plan.drawn_bytes, "under way and drawn, their states (estimate)"),
        ]
        if plan.drawn_bytes:
            on_top = ";\n                to draw answers and to reward them takes time beside it"
    else:
        from griffin.train.plan import plan_training

        plan = plan_training(recipe)
    known = rate is not None or measure
    found, limit = matrix_limit(recipe, rate) if known else (None, None)
    hint = slow_bfloat16(recipe) if measure and rate is None else None
    tokens = plan.steps * plan.tokens_per_step
    facts: dict[str, Any] = {
        "recipe": name,
        **asdict(plan),
        "state_bytes": plan.state_bytes,
        "total_bytes": plan.total_bytes,
        "ram_bytes": there,
        "fits": plan.total_bytes <= there,
        "operations_per_second": found,
        "limit_tokens_per_second": limit,
        "least_seconds": tokens / limit if limit and tokens else None,
        "hint": hint,
    }
    if as_json:
        import json

        click.echo(json.dumps(facts))
        return
    train = recipe.train
    click.echo(
        f"{name}: {plan.parameters:,} weights{_how(recipe, plan.trained)};"
        f" {_budget(recipe, plan.steps)} of {plan.tokens_per_step:,} tokens\n"
    )
    pairs = recipe.tune is not None and recipe.tune.method == "dpo"
    rows = f"{train.rows} pairs of twice" if pairs else f"{train.rows} rows of"
    kept = f"kept of {rows} {train.length:,} for the backward pass (estimate)"
    for what, count, note in (
        ("base", plan.frozen_bytes, "which stays as it is"),
        ("weights", plan.weight_bytes, ""),
        ("their copies", plan.copy_bytes, "in bfloat16, while a step runs"),
        ("gradient", plan.gradient_bytes, ""),
        ("moments", plan.moment_bytes, "AdamW's two"),
        *beside,
        ("activations", plan.activation_bytes, kept),
        ("  or", plan.checkpointed_bytes, "with each block's input alone kept"),
        ("loss", plan.loss_bytes, "tiles of logits"),
        ("between steps", plan.between_bytes, "in place of copies, gradient, activations, loss"),
        ("carried states", plan.carried_bytes, "from before a step and after it"),
        ("process", plan.runtime_bytes, "Python and torch (estimate)"),
        ("together", plan.total_bytes, ""),
        ("there are", there, "" if facts["fits"] else "which is too little"),
    ):
        if count:
            click.echo(f"{what:<16}{count:>20,}  {binary(count):>12}  {note}".rstrip())
    if found is None or limit is None:
        click.echo("\nspeed           not known; give --product-rate, or let it be measured")
        return
    least = f", {_hours(tokens / limit / 3600)} for the budget" if tokens else ""
    click.echo(
        f"\nspeed           at most {limit:,.0f} tokens/s with {found / 1e9:,.0f} billion"
        f" operations/s{least};\n"
        f"                `griffin bench train` measures a step's share of that{on_top}"
    )
    if hint is not None:
        click.echo(f"\n{hint}")


def _budget(recipe: Recipe, steps: int) -> str:
    """Say how many steps there are, or by what the data decides it."""
    if steps:
        return f"{steps:,} steps"
    epochs = recipe.train.epochs
    return f"{epochs:g} epoch{'s' * (epochs != 1)}, in steps"


def _hours(count: float) -> str:
    return f"{count:,.1f} hours" if count >= 0.1 else f"{60 * count:.2g} minutes"


def _how(recipe: Recipe, trained: int) -> str:
    train, tune = recipe.train, recipe.tune
    if tune is not None and tune.trains != "full":
        kind = {"lora": f"an adapter of rank {tune.rank}", "state": "a state"}[tune.trains]
        return f", of which none is trained, but {kind} of {trained:,} numbers"
    return f" in {train.weights}, products in {train.dtype}"
