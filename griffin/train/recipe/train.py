"""The section [train] of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from griffin.train.recipe.section import check_types


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """Say how the weights are found. A step reads rows x accumulation x length tokens.

    tokens or steps      the budget: exactly one of them is given, the other is 0.
    rows, length         shape of one micro-batch; accumulation: micro-batches a step.
    learning_rate        the peak, reached in a line over `warmup_steps`.
    schedule             what follows: "cosine" or "linear" down to `final_ratio` of the peak at the
                         last step; "constant"; "wsd" (warm-up, stable, decay): constant, then a
                         line down over the last `decay_steps`.
    weight_decay         on matrices only; never on RG-LRU parameters, norms, biases and embeddings.
    clip                 the largest norm of the gradient; 0 leaves it alone.
    dtype                "float32", or "bfloat16": bfloat16 matrix products over float32 weights.
    sequence_ranks       how many ranks of a `torchrun` read the same rows, each a piece of them.
    eval_every           steps between validations on the first `eval_tokens` held-out tokens.
    checkpoint_minutes   minutes between checkpoints; the newest `keep` of them stay.
    keep_best            keep the weights of the best validation too, in checkpoints/best.
    """

    tokens: int = 0
    steps: int = 0
    rows: int = 16
    length: int = 512
    accumulation: int = 1
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
    log_every: int = 10
    sequence_ranks: int = 1
    eval_every: int = 250
    eval_tokens: int = 100_000
    checkpoint_minutes: float = 10.0
    keep: int = 2
    keep_best: bool = True

    def __post_init__(self) -> None:
        check_types(self, "train")
        if (self.tokens > 0) == (self.steps > 0):
            raise ValueError(
                f"train needs exactly one budget, tokens or steps, "
                f"not tokens={self.tokens} and steps={self.steps}"
            )
        for name in (
            "rows",
            "length",
            "accumulation",
            "sequence_ranks",
            "log_every",
            "eval_every",
            "eval_tokens",
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
            *("tokens", "steps", "warmup_steps", "decay_steps"),
            *("weight_decay", "clip", "seed"),
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name} must not be negative, not {getattr(self, name)}")
        for name in ("learning_rate", "epsilon", "checkpoint_minutes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"train.{name} must be positive, not {getattr(self, name)}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"train.{name} must be at least 0 and less than 1, not {getattr(self, name)}"
                )
        if not 0 <= self.final_ratio <= 1:
            raise ValueError(f"train.final_ratio must lie between 0 and 1, not {self.final_ratio}")
        if (self.schedule == "wsd") != (self.decay_steps > 0):
            raise ValueError(
                "train.decay_steps belongs to train.schedule = 'wsd', which needs it; here it is"
                f" {self.decay_steps}, with {self.schedule!r}"
            )

    @property
    def tokens_per_step(self) -> int:
        return self.rows * self.length * self.accumulation

    @property
    def total_steps(self) -> int:
        """The number of optimiser steps the budget pays for, at least one."""
        return self.steps or max(1, self.tokens // self.tokens_per_step)
