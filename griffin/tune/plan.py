"""What tuning takes, before weights are read: bytes, and operations for each token."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from griffin.adapters.adapter import A, B, expected
from griffin.capacity import model_bytes, working_bytes
from griffin.engine import CHUNK
from griffin.engine.slots import Slots
from griffin.model.tuned_state import tuned_shapes
from griffin.train.plan import TrainingPlan, plan_training, saving_bytes
from griffin.train.recipe import ONLINE, Recipe
from griffin.tune.budget import RunBudget, drawn_answers
from griffin.tune.learner import base_dtype, base_layout, lora_config
from griffin.tune.sample import MAX_ROWS

_WIDE = 4  # bytes of a float32
_DRAWN = 500  # bytes of a token that was drawn: its id and log-probability as Python has them


@dataclass(frozen=True, kw_only=True)
class TuningPlan(TrainingPlan):
    """How the memory of a run with [tune] is divided, on each of its ranks.

    twin_bytes:  of what stands beside the weights that are trained: the model as it was, and an
                 anchor.
    drawn_bytes: of answers under way and drawn: their states, a call's values, ids and
                 log-probabilities.
    """

    twin_bytes: int = 0
    drawn_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return super().total_bytes + self.twin_bytes + self.drawn_bytes


def plan_tuning(recipe: Recipe, ranks: int = 1, budget: RunBudget | None = None) -> TuningPlan:
    """Return what a recipe with [tune] takes.

    The base's headers are read, no weights. An adapter or a state is float32, with AdamW's two
    moments and the gradient; the base lies whole on every rank. What a reference thinks of pairs is
    computed before there is a run, with no more than it takes. For rewards nothing is given back
    between drawing and learning; on a GPU graphs take more.
    budget: as `count_budget` has it. Without it a step of pairs or rewards is said to read rows and
    answers of the longest kind.
    """
    tune, train = recipe.tune, recipe.train
    assert tune is not None
    plan = TuningPlan(**dataclasses.asdict(plan_training(recipe, ranks)))
    # Of a pair both answers are read together, and so are J-BOND's two.
    rows = train.rows
    if tune.method == "dpo":
        rows *= 2
        plan = dataclasses.replace(plan, tokens_per_step=2 * plan.tokens_per_step)
    elif tune.method == "jbond":
        rows = 2 * max(1, rows // 2)
    if tune.method in ONLINE:
        most = drawn_answers(recipe) * tune.answer_tokens
        plan = dataclasses.replace(plan, tokens_per_step=most)
    read = {
        name: getattr(plan, name) * rows // train.rows
        for name in ("activation_bytes", "checkpointed_bytes")
    }
    if budget is not None:
        read |= budget._asdict()
    plan = dataclasses.replace(plan, **read)
    if tune.trains != "full":
        trained = _trained(recipe)
        own = -(-trained // ranks) * _WIDE
        plan = dataclasses.replace(
            plan,
            trained=trained,
            frozen_bytes=_base_bytes(recipe),
            weight_bytes=trained * _WIDE,
            copy_bytes=0,
            gradient_bytes=own,
            moment_bytes=2 * own,
            between_bytes=saving_bytes(3 * own, own),
        )
    if tune.method not in ONLINE:
        return plan
    # Beside an adapter what it was added to is still there, unless it keeps modules whole.
    twins = (tune.trains == "full" or bool(tune.whole)) + (tune.method == "jbond")
    twin = plan.weight_bytes * twins
    return dataclasses.replace(plan, twin_bytes=twin, drawn_bytes=_drawn_bytes(recipe))


def _drawn_bytes(recipe: Recipe) -> int:
    """Return the bytes of the answers of a step: the engine's slots and the states kept for forks,
    a call's values, and what comes back."""
    tune, config = recipe.tune, recipe.model
    assert tune is not None
    if tune.trains == "full":
        dtype: torch.dtype = getattr(torch, recipe.train.weights)
    else:
        dtype = base_dtype(tune, recipe.open_base())
    n = 2 if tune.method == "jbond" else tune.answers  # of a prompt at once
    slots = max(n, min(MAX_ROWS, n * tune.prompts))
    states = Slots.bytes(config, dtype, slots + -(-slots // 4))
    called = working_bytes(config, dtype, slots, CHUNK)
    return states + called + _DRAWN * drawn_answers(recipe) * tune.answer_tokens


def check_tuning_memory(recipe: Recipe, there: int, ranks: int = 1) -> None:
    """Raise ValueError if tuning does not fit into `there` bytes a rank, and say what would."""
    plan = plan_tuning(recipe, ranks)
    if plan.total_bytes <= there:
        return
    fits = [
        words for words, other in _smaller(recipe) if plan_tuning(other, ranks).total_bytes <= there
    ]
    beside = "".join(
        f", {count / 1e9:.1f} of {what}"
        for count, what in (
            (plan.twin_bytes, "the model as it was and its anchor"),
            (plan.drawn_bytes, "answers"),
        )
        if count
    )
    raise ValueError(
        f"this takes about {plan.total_bytes / 1e9:.1f} GB: {plan.frozen_bytes / 1e9:.1f} of a base"
        f" that stays as it is, {plan.state_bytes / 1e9:.1f} of what is trained, its gradient and"
        f" moments, {plan.activation_bytes / 1e9:.1f} of activations{beside}; there are"
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
    """Return the bytes of the weights that stay as they are."""
    tune, source = recipe.tune, recipe.open_base()
    assert tune is not None
    layout = base_layout(tune, source, torch.device("cpu"))
    head = None
    if source.quantization is not None and layout is None:
        layout, head = source.quantization.format, source.quantization.head
    dtype = base_dtype(tune, source)
    # Modules that an adapter keeps whole stand in the place of the base's.
    given = expected(lora_config(tune), recipe.model) if tune.trains == "lora" else {}
    whole = (size for key, size in given.items() if not key.endswith((A, B)))
    replaced = sum(torch.Size(size).numel() for size in whole) * dtype.itemsize
    return model_bytes(recipe.model, dtype, layout, head) - replaced
