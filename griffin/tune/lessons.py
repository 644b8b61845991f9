"""What the methods that learn from rewards have of their own: whose answers, and their loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from griffin.train.recipe import TuneRecipe
from griffin.tune.heard import Heard, padded, sums
from griffin.tune.losses import (
    JBondWeights,
    better,
    group_advantages,
    grpo_loss,
    jbond_loss,
    jbond_weights,
    leave_one_out,
    rloo_loss,
)
from griffin.tune.sample import Drawn

# Of a policy's piece of units, which units those are: log-probabilities (U, k, A) with gradients
# and their mask; returned is the loss of each, (U,).
UnitLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Lesson:
    """What a step learns from.

    units: of answers, all of one size; the last of each was drawn by the policy. loss: of some of
           them; the step's is the mean over all. ties: the share of prompts of which the method
           cannot tell what is better.
    """

    units: Sequence[tuple[Drawn, ...]]
    loss: UnitLoss
    ties: float


@dataclass(frozen=True)
class OnlineMethod:
    """answers, anchors: samples a prompt, of the policy and of the anchor. lesson: what is learned
    from them."""

    answers: int
    anchors: int
    lesson: Callable[[Heard], Lesson]


def method_of(tune: TuneRecipe) -> OnlineMethod:
    """Return the method that a recipe names."""
    if tune.method == "jbond":
        return OnlineMethod(1, 2, lambda heard: _jbond(heard, tune))
    lesson = {"grpo": _grpo, "rloo": _rloo}[tune.method]
    return OnlineMethod(tune.answers, 0, lambda heard: lesson(heard, tune))


def _jbond(heard: Heard, tune: TuneRecipe) -> Lesson:
    anchor_rewards, own = heard.anchor_rewards, heard.own
    weights = jbond_weights(
        sums([answer.logprobs for answer in own]),
        sums(heard.anchor),
        heard.rewards[:, 0],
        anchor_rewards,
        tune.mix,
        tune.gamma,
    )
    best = [
        pair[which]
        for pair, which in zip(heard.anchors, better(anchor_rewards).tolist(), strict=True)
    ]

    def loss(policy: Tensor, mask: Tensor, which: Tensor) -> Tensor:
        of_best, of_own = policy.sum(-1).unbind(-1)
        some = JBondWeights(*(part[which].to(policy) for part in weights))
        return jbond_loss(of_best, of_own, some)

    ties = (anchor_rewards[:, 0] == anchor_rewards[:, 1]).double().mean()
    return Lesson(list(zip(best, own, strict=True)), loss, float(ties))


def _grpo(heard: Heard, tune: TuneRecipe) -> Lesson:
    advantages = group_advantages(heard.rewards).flatten()

    def loss(policy: Tensor, mask: Tensor, which: Tensor) -> Tensor:
        policy, mask = policy[:, 0], mask[:, 0]
        old, start = (
            padded([values[place] for place in which.tolist()], policy)
            for values in ([answer.logprobs for answer in own], heard.start)
        )
        each = advantages[which].to(policy)
        return grpo_loss(policy, old, mask, each, tune.epsilon, start, tune.kl)

    own = heard.own
    return Lesson([(answer,) for answer in own], loss, _alike(heard.rewards))


def _rloo(heard: Heard, tune: TuneRecipe) -> Lesson:
    own = heard.own
    old = sums([answer.logprobs for answer in own])
    pulled = heard.rewards - tune.kl * (old - sums(heard.start)).view_as(heard.rewards)
    advantages = leave_one_out(pulled).flatten()

    def loss(policy: Tensor, mask: Tensor, which: Tensor) -> Tensor:
        each, before = (part[which].to(policy) for part in (advantages, old))
        return rloo_loss(policy[:, 0].sum(-1), before, each, tune.epsilon)

    return Lesson([(answer,) for answer in own], loss, _alike(heard.rewards))


def _alike(rewards: Tensor) -> float:
    """Return the share of prompts whose answers are all worth the same: nothing can be learned."""
    best, worst = rewards.nan_to_num(-torch.inf), rewards.nan_to_num(torch.inf)
    return float((~(best.amax(-1) > worst.amin(-1))).double().mean())
