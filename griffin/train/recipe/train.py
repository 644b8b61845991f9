"""The section [train] of a recipe."""

from __future__ import annotations

import dataclasses
import itertools
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from griffin.train.recipe.section import check_types
from griffin.train.recipe.stage import StageRecipe, read_stages

BUDGETS = ("tokens", "steps", "epochs", "stage")

SMALLEST_EPSILON = 1e-30
_CHECKPOINTS = {"none": 0, "blocks": 1}


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """Say how the weights are found. A step reads rows x accumulation x length tokens.

    tokens, steps, epochs, stage
                         the budget: exactly one of them is given. epochs: how often the documents
                         are read, all sources together. stage: tables, [[train.stage]], each with
                         its own part of the budget.
    rows, length         shape of one micro-batch; accumulation: micro-batches a step.
    carry                True: what a row's end cuts off goes on in the next micro-batch, with the
                         state that was there.
    learning_rate        the peak, reached in a line over `warmup_steps`.
    schedule             what follows: "cosine" or "linear" down to `final_ratio` of the peak at the
                         last step; "constant"; "wsd" (warm-up, stable, decay): constant, then a
                         line down over the last `decay_steps`.
    weight_decay         on matrices only; never on RG-LRU parameters, norms, biases and embeddings.
    clip                 the largest norm of the gradient; 0 leaves it alone.
    dtype                "float32", or "bfloat16": bfloat16 matrix products over float32 weights.
    checkpoint           what a forward pass keeps for the backward one: "none" keeps all that it
                         needs; "blocks" what goes into each block, or n what goes into every n-th,
                         and computes the rest again. The weights are the same, to the bit.
    sequence_ranks       how many ranks of a `torchrun` read the same rows, each a piece of them.
    weights              "float32", or "bfloat16" where memory does not allow more: weights, moments
                         and gradient in bfloat16, each step's results rounded up or down by lot.
    eval_every           steps between validations on the first `eval_tokens` held-out tokens.
    checkpoint_minutes   minutes between checkpoints; the newest `keep` of them stay.
    keep_best            keep the weights of the best validation too, in checkpoints/best.
    prompts              texts that are continued, by the likeliest `sample_tokens` tokens, every
                         `sample_every` steps; 0: at every validation.
    """

    tokens: int = 0
    steps: int = 0
    epochs: float = 0.0
    stage: tuple[StageRecipe, ...] = ()
    rows: int = 16
    length: int = 512
    accumulation: int = 1
    carry: bool = False
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    warmup_steps: int = 100
    decay_steps: int = 0
    final_ratio: float = 0.1
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    clip: float = 1.0
    seed: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"
    weights: Literal["float32", "bfloat16"] = "float32"
    checkpoint: int | str = "none"
    log_every: int = 10
    sequence_ranks: int = 1
    eval_every: int = 250
    eval_tokens: int = 100_000
    checkpoint_minutes: float = 10.0
    keep: int = 2
    keep_best: bool = True
    prompts: tuple[str, ...] = ()
    sample_every: int = 0
    sample_tokens: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "stage", read_stages(self.stage))
        check_types(self, "train", but=("stage",))
        budgets = {key: getattr(self, key) for key in BUDGETS if getattr(self, key)}
        if len(budgets) != 1:
            given = " and ".join("stages" if k == "stage" else f"{k}={budgets[k]}" for k in budgets)
            raise ValueError(
                "train needs exactly one budget, tokens, steps, epochs or [[train.stage]], not"
                f" {given or 'none'}"
            )
        for name in (
            "rows",
            "length",
            "accumulation",
            "sequence_ranks",
            "log_every",
            "eval_every",
            "eval_tokens",
            "sample_tokens",
            "keep",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} must be at least 1, not {getattr(self, name)}")
        if self.length < self.sequence_ranks:
            raise ValueError(
                f"train.length is {self.length}, too short to be split over train.sequence_ranks ="
                f" {self.sequence_ranks}"
            )
        for name in (
            *("tokens", "steps", "epochs", "warmup_steps", "decay_steps", "sample_every"),
            *("weight_decay", "clip", "seed"),
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name} must not be negative, not {getattr(self, name)}")
        if self.seed >= 2**63:
            raise ValueError(f"train.seed must be below 2**63 = {2**63}, not {self.seed}")
        for name in ("learning_rate", "epsilon", "checkpoint_minutes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"train.{name} must be positive, not {getattr(self, name)}")
        if self.epsilon < SMALLEST_EPSILON:
            raise ValueError(
                f"train.epsilon must be at least {SMALLEST_EPSILON:g}, not {self.epsilon}: in"
                " float32 a smaller one is next to 0, and a weight without gradients becomes 0 / 0"
            )
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"train.{name} must be at least 0 and less than 1, not {getattr(self, name)}"
                )
        if not 0 <= self.final_ratio <= 1:
            raise ValueError(f"train.final_ratio must lie between 0 and 1, not {self.final_ratio}")
        if (self.weights, self.dtype) == ("bfloat16", "float32"):
            raise ValueError(
                "train.weights = 'bfloat16' needs train.dtype = 'bfloat16': what is computed with"
                " such weights is bfloat16 too"
            )
        if (self.schedule == "wsd") != (self.decay_steps > 0):
            raise ValueError(
                "train.decay_steps belongs to train.schedule = 'wsd', which needs it; here it is"
                f" {self.decay_steps}, with {self.schedule!r}"
            )
        if isinstance(self.checkpoint, str):
            known = self.checkpoint in _CHECKPOINTS
        else:
            known = self.checkpoint >= 1
        if not known:
            raise ValueError(
                "train.checkpoint must be 'none', 'blocks' or a whole number of blocks of at least"
                f" 1, not {self.checkpoint!r}"
            )
        if self.stage:
            try:
                self._courses  # noqa: B018  # each is a run of its own, and is checked as one
            except ValueError as error:
                raise ValueError(f"train.stage: {error}") from error

    @property
    def keep_every(self) -> int:
        """Of how many blocks the first one's input is kept; 0: everything is."""
        if isinstance(self.checkpoint, int):
            return self.checkpoint
        return _CHECKPOINTS[self.checkpoint]

    @property
    def tokens_per_step(self) -> int:
        return self.rows * self.length * self.accumulation

    @property
    def total_steps(self) -> int:
        """The number of optimiser steps the budget pays for, at least one."""
        if self.epochs:
            raise ValueError(
                "a budget in epochs is one in steps once the rows are counted: in_steps"
            )
        if self.stage:
            return sum(steps for _, steps in self.stages)
        return self.steps or self._paid(self.tokens)

    def in_steps(self, rows: int) -> TrainRecipe:
        """Return this with a budget in epochs as one in steps. rows: of all those epochs."""
        if not self.epochs:
            return self
        steps = max(1, rows // (self.rows * self.accumulation))
        return dataclasses.replace(self, epochs=0.0, steps=steps)

    @cached_property
    def stages(self) -> list[tuple[StageRecipe, int]]:
        """The stages with the steps of each; without tables one that is the whole run."""
        if not self.stage:
            return [(StageRecipe(steps=self.total_steps), self.total_steps)]
        return [(stage, stage.steps or self._paid(stage.tokens)) for stage in self.stage]

    def stage_of(self, step: int) -> int:
        """Return which of the stages a step belongs to, counted from 0; the last beyond the end."""
        ends = itertools.accumulate(steps for _, steps in self.stages)
        return min(sum(end <= step for end in ends), len(self.stages) - 1)

    def stage_entry(self, step: int) -> dict[str, str]:
        """Return the log's `stage` of a step: its name or number; nothing for a run without."""
        number = self.stage_of(step)
        return {"stage": self.stage[number].name or str(number + 1)} if self.stage else {}

    def course(self, step: int) -> tuple[int, TrainRecipe]:
        """Return the learning rate's course that a step belongs to, as a run of its own, and the
        step that it begins at."""
        place = bisect_right(self._courses, step, key=lambda course: course[0]) - 1
        return self._courses[place]

    @cached_property
    def _courses(self) -> list[tuple[int, TrainRecipe]]:
        found, start = list[tuple[int, dict[str, Any], int]](), 0
        for stage, steps in self.stages:
            if stage.course or not found:
                given = {"warmup_steps": 0} if found else {}
                if stage.schedule not in (None, "wsd"):
                    given["decay_steps"] = 0
                found.append((start, given | stage.course, steps))
            else:
                first, given, before = found[-1]
                found[-1] = (first, given, before + steps)
            start += steps
        budget = {"tokens": 0, "epochs": 0.0, "stage": ()}
        return [
            (first, dataclasses.replace(self, **budget, **given, steps=steps))
            for first, given, steps in found
        ]

    def _paid(self, tokens: int) -> int:
        return max(1, tokens // self.tokens_per_step)
