"""Losses of tuning, as functions of log-probabilities alone; each is small when the model is good.

The log-probability of an answer is the sum over its tokens, its end included, given its prompt, in
nats. Letters: P prompts or pairs, S samples, n samples of one prompt, T tokens. Every function
returns one number a pair, prompt or sample, so that a batch can be read in pieces: the loss is
their mean. Gradients flow from the policy's log-probabilities; those of a reference, an anchor or
an older policy, rewards and advantages are constants.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

PreferenceKind = Literal["sigmoid", "ipo", "sigmoid_norm"]
# What a sample is paid that is worse than both of the anchor's (arXiv:2407.14622, appendix A.4).
WORSE = -math.log(16)
# What keeps a group's deviation from 0; TRL's.
_LEAST_DEVIATION = 1e-4


def dpo_loss(
    policy: Tensor,
    reference: Tensor,
    lengths: Tensor,
    beta: float = 0.1,
    kind: PreferenceKind = "sigmoid",
) -> Tensor:
    """Return the loss of each pair of answers, (P,).

    policy, reference: (P, 2) log-probabilities of the chosen answer and of the rejected one.
    lengths:           (P, 2), their tokens, the end included.
    beta:              how much a nat of log-ratio says, the strength of staying near the reference.
    kind, with the margin m = log-ratio of the chosen - log-ratio of the rejected:
        "sigmoid"       -log sigmoid(beta m): DPO (arXiv:2305.18290, equation 7).
        "ipo"           (m' - 1 / (2 beta))^2: IPO (arXiv:2310.12036, equation 17). In m' each
                        log-ratio is divided by its answer's length, as in TRL ("ipo"), whose
                        comment says that the authors did so too; without it the square grows with
                        the length.
        "sigmoid_norm"  -log sigmoid(beta m'), TRL's "sigmoid_norm": length-normalised DPO.
    Raises ValueError for another kind and for an answer without tokens.
    """
    if bool((lengths < 1).any()):
        raise ValueError("an answer that is compared has one token at least: its end")
    ratios = policy - reference.detach()
    if kind == "sigmoid":
        return -functional.logsigmoid(beta * (ratios[..., 0] - ratios[..., 1]))
    ratios = ratios / lengths
    margin = ratios[..., 0] - ratios[..., 1]
    if kind == "ipo":
        return (margin - 1 / (2 * beta)) ** 2
    if kind == "sigmoid_norm":
        return -functional.logsigmoid(beta * margin)
    raise ValueError(f"a loss of preferences is sigmoid, ipo or sigmoid_norm, not {kind!r}")


def margins(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Return by how much the implicit reward of the chosen answers is above the other's, (P,).

    The reward of an answer is beta times its log-ratio to the reference (arXiv:2305.18290). policy,
    reference: (P, 2), as for `dpo_loss`. A pair is understood where this is above 0.
    """
    ratios = (policy - reference).detach()
    return beta * (ratios[..., 0] - ratios[..., 1])


def leave_one_out(values: Tensor) -> Tensor:
    """Return values less the mean of the others beside them, (..., n).

    NaN is a value that is missing: it counts for no other, and its own place is 0, as is that of a
    value that is alone. The baseline does not depend on the sample that it is taken from, so an
    average over samples of gradients weighed by this is the gradient of the mean value.
    """
    known = ~values.isnan()
    others = known.sum(-1, keepdim=True) - 1
    baseline = (values.nansum(-1, keepdim=True) - values) / others
    return torch.where(known & (others > 0), values - baseline, 0.0)


def group_advantages(rewards: Tensor) -> Tensor:
    """Return rewards in units of their group's deviation, from its mean: (P, n), GRPO's advantages.

    arXiv:2402.03300, equation 10's; the deviation is the sample's (n - 1), plus 1e-4, as in TRL. A
    reward of NaN is missing: its place is 0, and it counts for no other. A group of equals is 0.
    """
    known = ~rewards.isnan()
    count = known.sum(-1, keepdim=True)
    apart = rewards - rewards.nanmean(-1, keepdim=True)
    variance = (apart**2).nansum(-1, keepdim=True) / (count - 1)
    return torch.where(known & (count > 1), apart / (variance.sqrt() + _LEAST_DEVIATION), 0.0)


def grpo_loss(
    policy: Tensor,
    old: Tensor,
    mask: Tensor,
    advantages: Tensor,
    clip: float = 0.2,
    reference: Tensor | None = None,
    kl: float = 0.0,
) -> Tensor:
    """Return the loss of each sample, (S,): GRPO, arXiv:2402.03300, equation 3.

    policy:     (S, T) log-probabilities of a sample's tokens.
    old:        (S, T) the same by the policy that drew it.
    mask:       (S, T) bool, which of them are the sample's.
    advantages: (S,), `group_advantages` of its reward.
    clip:       the ratio of policy and old counts within 1 - clip and 1 + clip.
    reference:  (S, T) the same by the model that is to be stayed near, and kl how strongly: a
                token's exp(d) - d - 1 with d = log reference - log policy is added ("k3", whose
                mean over samples is the divergence, and which is never below 0).
    A sample is the mean over its tokens and a batch the mean over its samples (TRL's loss_type
    "grpo"; its default, "dapo", weighs all tokens of a batch alike).
    """
    moved = torch.where(mask, policy - old.detach(), 0.0)  # what stands in padding may be anything
    nats = -_clipped(moved, advantages[:, None], clip)
    if reference is not None and kl:
        behind = torch.where(mask, reference.detach() - policy, 0.0)
        nats = nats + kl * (behind.exp() - behind - 1)
    return (nats * mask).sum(-1) / mask.sum(-1).clamp(min=1)


def rloo_loss(policy: Tensor, old: Tensor, advantages: Tensor, clip: float = 0.2) -> Tensor:
    """Return the loss of each sample, (S,): REINFORCE with the others of its prompt as baseline.

    arXiv:2402.14740, with a clipped ratio as TRL's RLOOTrainer has it; a sample that the policy
    itself drew has ratio 1, and the gradient is REINFORCE's, -advantage times that of the
    log-probability. A penalty on the divergence belongs in the rewards.

    policy, old: (S,) log-probabilities of whole samples, by the policy and by that which drew them.
    advantages:  (S,), `leave_one_out` of the rewards of a prompt's samples.
    """
    return -_clipped(policy - old.detach(), advantages, clip)


class JBondWeights(NamedTuple):
    """What one step of J-BOND multiplies its log-probabilities with; constants.

    best:   (P,), the log-probability of the better of the anchor's samples, 0 or less.
    policy: (P,), that of the policy's own sample.
    """

    best: Tensor
    policy: Tensor


def better(anchor_rewards: Tensor) -> Tensor:
    """Return which of the anchor's samples is the better one, (P,) int64; of equals the first.

    anchor_rewards: (P, 2).
    """
    return (anchor_rewards[..., 1] > anchor_rewards[..., 0]).long()


def jbond_returns(
    policy: Tensor, anchor: Tensor, rewards: Tensor, anchor_rewards: Tensor
) -> Tensor:
    """Return R of the policy's samples, (P,): r_J - (log policy - log anchor).

    r_J is -log 16 for a sample that is worse than both of the anchor's, and 0 for any other: only
    the order of rewards matters. policy, anchor: (P,) log-probabilities of the policy's sample.
    rewards: (P,), of it; anchor_rewards: (P, 2), of the anchor's. Where one of the three is NaN,
    nothing can be compared, and so is R.
    """
    worse = (rewards[..., None] < anchor_rewards).all(-1)
    paid = torch.where(worse, WORSE, 0.0).to(policy)
    known = ~(rewards.isnan() | anchor_rewards.isnan().any(-1))
    return torch.where(known, paid - (policy - anchor).detach(), torch.nan)


def jbond_weights(
    policy: Tensor,
    anchor: Tensor,
    rewards: Tensor,
    anchor_rewards: Tensor,
    mix: float = 0.5,
    gamma: float = 0.0,
) -> JBondWeights:
    """Return the weights of one step of J-BOND, arXiv:2407.14622, algorithm 2.

    All as for `jbond_returns`; the last dimension is the batch's prompts, whose others are the
    baseline. mix is the paper's beta, the share of the backward part; gamma the strength of staying
    near the anchor. The gradient of `jbond_loss` is

        (1 - mix) * -grad log policy(better of the anchor's two samples)           forward
        + mix * -grad log policy(y) * (R - mean R of the others)                   backward
        + gamma * grad log policy(y) * (log policy(y) - log anchor(y))             regulariser

    The regulariser is the gradient of the divergence from the anchor, which is to fall (equation
    19). Algorithm 2 prints it with the other sign, by which it would rise.
    A prompt of which a reward is NaN weighs nothing.
    """
    returns = jbond_returns(policy, anchor, rewards, anchor_rewards)
    drift = torch.where(returns.isnan(), 0.0, (policy - anchor).detach())
    forward = torch.where(returns.isnan(), 0.0, mix - 1.0).to(policy)
    return JBondWeights(forward, gamma * drift - mix * leave_one_out(returns))


def jbond_loss(best: Tensor, policy: Tensor, weights: JBondWeights) -> Tensor:
    """Return a number a prompt, (P,), of whose mean the gradient is J-BOND's; it is no loss itself.

    best, policy: (P,) log-probabilities by the policy, with gradients, of the better of the
    anchor's samples and of the policy's own.
    """
    return weights.best.detach() * best + weights.policy.detach() * policy


def _clipped(log_ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Return the lesser of ratio and clipped ratio times the advantage (arXiv:1707.06347)."""
    ratio, advantages = log_ratio.exp(), advantages.detach()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
