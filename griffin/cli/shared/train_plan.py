"""What a training run takes on this machine: memory, and the products' rate for its speed."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from griffin.cli.shared.memory import memory_bytes
from griffin.cli.shared.sizes import binary

if TYPE_CHECKING:
    from griffin.train.recipe import Recipe

_ROWS = 4096  # of the products whose rate is measured, at most
_SECONDS = 0.4


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
    recipe multiplies in, on the CPU with torch's threads.
    """
    import torch

    from griffin.bench.rates import matrix_rate
    from griffin.bench.work import matrix_shapes, trained_weights, training_operations
    from griffin.model import Griffin

    train = recipe.train
    if rate is None:
        rows = min(train.rows * train.length, _ROWS)
        rate = matrix_rate(matrix_shapes(recipe.model), rows, train.dtype, _SECONDS)
    with torch.device("meta"):
        weights = trained_weights(Griffin(recipe.model))
    return rate, rate / training_operations(recipe.model, weights, train.length)


def print_train_plan(
    name: str, recipe: Recipe, there: int, rate: float | None, measure: bool, as_json: bool
) -> None:
    """Say what a run takes: bytes of each kind, and the most tokens/s that products allow.

    there: the memory it may have. rate: as for `matrix_limit`, measured if omitted and `measure`.
    """
    from griffin.train.plan import plan_training

    plan = plan_training(recipe)
    known = rate is not None or measure
    found, limit = matrix_limit(recipe, rate) if known else (None, None)
    budget = plan.steps * plan.tokens_per_step
    facts: dict[str, Any] = {
        "recipe": name,
        **asdict(plan),
        "state_bytes": plan.state_bytes,
        "total_bytes": plan.total_bytes,
        "ram_bytes": there,
        "fits": plan.total_bytes <= there,
        "operations_per_second": found,
        "limit_tokens_per_second": limit,
        "least_seconds": budget / limit if limit and budget else None,
    }
    if as_json:
        import json

        click.echo(json.dumps(facts))
        return
    train = recipe.train
    click.echo(
        f"{name}: {plan.parameters:,} weights in {train.weights}, products in {train.dtype};"
        f" {f'{plan.steps:,}' if plan.steps else '?'} steps of {plan.tokens_per_step:,} tokens\n"
    )
    kept = f"kept of {train.rows} rows of {train.length:,} for the backward pass (estimate)"
    for what, count, note in (
        ("weights", plan.weight_bytes, ""),
        ("their copies", plan.copy_bytes, "in bfloat16, while a step runs"),
        ("gradient", plan.gradient_bytes, ""),
        ("moments", plan.moment_bytes, "AdamW's two"),
        ("activations", plan.activation_bytes, kept),
        ("  or", plan.checkpointed_bytes, "with each block's input alone kept"),
        ("loss", plan.loss_bytes, "tiles of logits"),
        ("process", plan.runtime_bytes, "Python and torch (estimate)"),
        ("together", plan.total_bytes, ""),
        ("there are", there, "" if facts["fits"] else "which is too little"),
    ):
        if count:
            click.echo(f"{what:<16}{count:>20,}  {binary(count):>12}  {note}".rstrip())
    if found is None or limit is None:
        click.echo("\nspeed           not known; give --product-rate, or let it be measured")
        return
    least = f", {budget / limit / 3600:,.1f} hours for the budget" if budget else ""
    click.echo(
        f"\nspeed           at most {limit:,.0f} tokens/s with {found / 1e9:,.0f} billion"
        f" operations/s{least};\n"
        "                `griffin bench train` measures a step's share of that"
    )
