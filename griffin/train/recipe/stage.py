"""The tables [[train.stage]] of a recipe: parts of a run with a mixture or a rate of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from griffin.train.recipe.section import check_types, read_section

# What makes a stage begin a course of the learning rate of its own.
COURSE = ("learning_rate", "schedule", "warmup_steps", "decay_steps", "final_ratio")


@dataclass(frozen=True, kw_only=True)
class StageRecipe:
    """Say what is different in a part of a run. What is not given is as in the stage before.

    name             in the log and in messages.
    tokens or steps  its part of the budget: exactly one of them.
    weights          of the sources, by name: the shares of rows. A source that is not named is not
                     read. Without this, the weights in [[data.source]].
    learning_rate    of these five any begins a new course of the rate, over this stage and those
    schedule         behind it that name none; what it does not give is [train]'s, but for the
    warmup_steps     warm-up: without `warmup_steps` only the run's first course has one.
    decay_steps
    final_ratio
    """

    name: str = ""
    tokens: int = 0
    steps: int = 0
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    learning_rate: float | None = None
    schedule: Literal["cosine", "linear", "constant", "wsd"] | None = None
    warmup_steps: int | None = None
    decay_steps: int | None = None
    final_ratio: float | None = None

    def __post_init__(self) -> None:
        check_types(self, "train.stage", but=("weights",))
        if min(self.tokens, self.steps) < 0 or (self.tokens > 0) == (self.steps > 0):
            raise ValueError(
                f"train.stage {self.name!r} needs exactly one budget, tokens or steps, not"
                f" tokens={self.tokens} and steps={self.steps}"
            )
        check_weights(self.weights, f"train.stage {self.name!r}: weights")

    @property
    def course(self) -> dict[str, Any]:
        """What of the learning rate's course is given here; empty: it goes on."""
        given = {key: getattr(self, key) for key in COURSE}
        return {key: value for key, value in given.items() if value is not None}


def check_weights(weights: Any, name: str) -> None:
    """Raise ValueError for weights that are no shares: no numbers, negative, or all zero."""
    if not isinstance(weights, Mapping):
        raise ValueError(f"{name} must be a table such as {{ web = 0.7, code = 0.3 }}")
    for source, weight in weights.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not (number and math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{name}.{source} must be a number of at least 0, not {weight!r}")
    if weights and not any(weights.values()):
        raise ValueError(f"{name} are all 0: nothing would be read")


def read_stages(value: Any) -> tuple[StageRecipe, ...]:
    """Return the tables of `stage` in [train]; ValueError for anything else."""
    if not isinstance(value, tuple) or not all(isinstance(t, Mapping | StageRecipe) for t in value):
        raise ValueError(f"train.stage must be tables, [[train.stage]], not {value!r}")
    return tuple(
        t if isinstance(t, StageRecipe) else read_section(StageRecipe, t, "train.stage")
        for t in value
    )
