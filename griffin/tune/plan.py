"""What tuning takes, before weights are read: bytes, and operations for each token."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from griffin.adapters.adapter import expected
from griffin.capacity import model_bytes
from griffin.model.tuned_state import tuned_shapes
from griffin.train.plan import TrainingPlan, plan_training
from griffin.train.recipe import ONLINE, Recipe
from griffin.tune.learner import base_dtype, base_layout, lora_config

_WIDE = 4  # bytes of a float32


def plan_tuning(recipe: Recipe, ranks: int = 1) -> TrainingPlan:
    """Return what a recipe with [tune] takes; `plan_training` where all weights are trained.

    The base's headers are read, no weights. What is trained is float32, with AdamW's two moments
    and the gradient; the base lies whole on every rank. For rewards a step's tokens are those of
    the longest answers: what is drawn from the engine is not in them.
    """
    tune = recipe.tune
    assert tune is not None
    whole = plan_training(recipe, ranks)
    if tune.method in ONLINE:
        drawn = tune.prompts * (2 if tune.method == "jbond" else tune.answers)
        whole = dataclasses.replace(whole, tokens_per_step=drawn * tune.answer_tokens)
    elif tune.method == "dpo":
        whole = dataclasses.replace(whole, tokens_per_step=2 * whole.tokens_per_step)
    if tune.trains == "full":
        return whole
    trained = _trained(recipe)
    own = -(-trained // ranks) * _WIDE
    frozen = _base_bytes(recipe)
    return dataclasses.replace(
        whole,
        trained=trained,
        frozen_bytes=frozen,
        weight_bytes=trained * _WIDE,
        copy_bytes=0,
        gradient_bytes=own,
        moment_bytes=2 * own,
    )


def check_tuning_memory(recipe: Recipe, there: int, ranks: int = 1) -> None:
    """Raise ValueError if tuning does not fit into `there` bytes a rank, and say what would."""
    plan = plan_tuning(recipe, ranks)
    if plan.total_bytes <= there:
        return
    fits = [
        words for words, other in _smaller(recipe) if plan_tuning(other, ranks).total_bytes <= there
    ]
    raise ValueError(
        f"this takes about {plan.total_bytes / 1e9:.1f} GB: {plan.frozen_bytes / 1e9:.1f} of a base"
        f" that stays as it is, {plan.state_bytes / 1e9:.1f} of what is trained, its gradient and"
        f" moments, {plan.activation_bytes / 1e9:.1f} of activations; there are"
        f" {there / 1e9:.1f} GB. "
        + (f"What would fit: {'; or '.join(fits[:3])}" if fits else "No other setting would fit")
        + ". --plan shows the parts; --force tries it all the same"
    )


def _smaller(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Yield recipes of less memory, with what differs in words."""
    tune, train = recipe.tune, recipe.train
    assert tune is not None
    leaner = dataclasses.replace(train, checkpoint="blocks", rows=1)
    rows = {"checkpoint": "blocks", "rows": 1}
    if tune.trains == "full":
        tune = dataclasses.replace(
            tune, **({"method": "lora"} if tune.method == "full" else {"parameters": "lora"})
        )
        first = "tune.method = 'lora'" if tune.method == "lora" else "tune.parameters = 'lora'"
    else:
        first = ""
    for base in ("", "bfloat16", "int8", "int4"):
        smaller = dataclasses.replace(tune, base=base or tune.base)
        words = [first] * bool(first)
        words += [f"tune.base = {base!r}"] * bool(base)
        yield ", ".join(words), dataclasses.replace(recipe, tune=smaller)
        more = [f"train.{k} = {v!r}" for k, v in rows.items() if getattr(train, k) != v]
        changed = dataclasses.replace(recipe, tune=smaller, train=leaner)
        yield ", ".join(words + more), changed


def _trained(recipe: Recipe) -> int:
    """Return how many numbers are trained beside a frozen base."""
    tune, config = recipe.tune, recipe.model
    assert tune is not None
    if tune.trains == "lora":
        shapes = expected(lora_config(tune), config)
    else:
        shapes = tuned_shapes(config, tune.keys)
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def _base_bytes(recipe: Recipe) -> int:
    tune, source = recipe.tune, recipe.open_base()
    assert tune is not None
    layout = base_layout(tune, source, torch.device("cpu"))
    head = None
    if source.quantization is not None and layout is None:
        layout, head = source.quantization.format, source.quantization.head
    return model_bytes(recipe.model, base_dtype(tune, source), layout, head)
