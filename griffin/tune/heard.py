"""What a step has heard: answers, what they were worth, and how probable others find them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from griffin.tune.reward import Reward
from griffin.tune.sample import Drawn


@dataclass(frozen=True)
class Heard:
    """The answers to a step's P prompts.

    answers, anchors: n of the policy, and of its anchor where the method has one, to each prompt.
    rewards, anchor_rewards: (P, n) float64 of them, NaN where the reward function failed.
    start, anchor: of each answer of the policy (P x n, one after another) the log-probabilities of
                   its ids by the model as it was at the start, and by the anchor.
    """

    answers: Sequence[Sequence[Drawn]]
    rewards: Tensor
    start: Sequence[Sequence[float]]
    anchors: Sequence[Sequence[Drawn]]
    anchor_rewards: Tensor
    anchor: Sequence[Sequence[float]]

    @property
    def own(self) -> list[Drawn]:
        """The policy's answers, one after another."""
        return [answer for some in self.answers for answer in some]

    @property
    def tokens(self) -> int:
        """How many were read and drawn: each prompt once, and all answers."""
        drawn = sum(len(each.ids) for some in (*self.answers, *self.anchors) for each in some)
        return drawn + sum(len(some[0].prompt) for some in self.answers)

    def measured(self) -> dict[str, float | None]:
        """Return, for the log, the `measures` of the policy's answers, and estimates of how far it
        has gone: its divergence in nats an answer from the start, and from the anchor."""
        own = sums([answer.logprobs for answer in self.own])
        found = measures(self.answers, self.rewards)
        found["kl_start"] = float((own - sums(self.start)).mean())
        if self.anchors:
            found["kl_anchor"] = float((own - sums(self.anchor)).mean())
        return found


def measures(answers: Sequence[Sequence[Drawn]], rewards: Tensor) -> dict[str, float | None]:
    """Return the mean `reward` and its standard error, over the means of prompts; tokens an answer,
    and the share that came to their end. None is what cannot be known.

    answers: n to each of P prompts. rewards: (P, n), NaN for one that is missing.
    """
    means = rewards.nanmean(-1)
    means = means[~means.isnan()]
    own = [answer for some in answers for answer in some]
    return {
        "reward": float(means.mean()) if len(means) else None,
        "reward_error": float(means.std() / len(means) ** 0.5) if len(means) > 1 else None,
        "answer_tokens": sum(len(answer.ids) for answer in own) / len(own),
        "ended": sum(answer.ended for answer in own) / len(own),
    }


def values_of(rewards: Sequence[Sequence[Reward]]) -> Tensor:
    """Return rewards as (P, n) float64, NaN for those that are none."""
    values = [[torch.nan if r.value is None else r.value for r in some] for some in rewards]
    return torch.tensor(values, dtype=torch.float64)


def sums(logprobs: Sequence[Sequence[float]]) -> Tensor:
    """Return the log-probabilities of whole answers, float64."""
    return torch.tensor([sum(each) for each in logprobs], dtype=torch.float64)


def padded(values: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """Return rows of numbers as one tensor in the shape of another, 0 behind their ends."""
    found = torch.zeros_like(like)
    for row, each in zip(found, values, strict=True):
        row[: len(each)] = torch.tensor(each)
    return found
