"""J-BOND on a model small enough to read all that it can say: nine sequences, in float64."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from griffin.tune.losses import (
    JBondWeights,
    better,
    jbond_loss,
    jbond_returns,
    jbond_weights,
)

VOCABULARY, PROMPTS, BATCHES = 3, 4, 100_000
MIX = 0.4
REWARDS = {
    "all different": [0.3, -1.0, 2.0, 0.0, 0.7, -0.2, 1.5, 0.1, -3.0],
    "ties": [1.0, 0.0, 0.0, 2.0, 1.0, 0.0, 2.0, 0.0, 1.0],
    "binary": [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0],
}


class _Model(NamedTuple):
    """Two tokens of three: logits of the first (3,), and of the second after each first (3, 3)."""

    weights: Tensor  # (12,)

    def log_probabilities(self) -> Tensor:
        """Return those of the nine sequences, (9,): 3 * first + second is a sequence's number."""
        first = self.weights[:VOCABULARY].log_softmax(-1)
        second = self.weights[VOCABULARY:].reshape(VOCABULARY, VOCABULARY).log_softmax(-1)
        return (first[:, None] + second).reshape(-1)


def _model(seed: int) -> _Model:
    random = torch.Generator().manual_seed(seed)
    return _Model(torch.randn(12, dtype=torch.float64, generator=random).requires_grad_())


def _below(anchor: Tensor, rewards: Tensor, *, equal: bool) -> Tensor:
    """Return how likely the anchor says something worse than each sequence, or as good, (9,)."""
    other, own = rewards[None], rewards[:, None]
    return (anchor * ((other <= own) if equal else (other < own))).sum(-1)


def _best_of_two(anchor: Tensor, rewards: Tensor) -> Tensor:
    """Return how likely each sequence is the better of two: its own twice, or the first of ties."""
    return anchor * (_below(anchor, rewards, equal=True) + _below(anchor, rewards, equal=False))


def _gradient(weight: Tensor, log_policy: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of weights (9,) times the gradients of the sequences' log-probabilities."""
    return torch.autograd.grad(log_policy, weights, weight.detach(), retain_graph=True)[0]


def _expected(
    policy: _Model,
    anchor: Tensor,
    rewards: Tensor,
    gamma: float,
    *,
    mix: float = MIX,
    jeffreys: bool = False,
) -> Tensor:
    """Return the expectation of algorithm 2's step over all sequences, (12,).

    jeffreys: that of the divergence which it stands for instead, (1 - mix) KL(best || policy) +
    mix KL(policy || best): in place of -log 16 for a sample worse than both there is the logarithm
    of P(r <= r(y)) + P(r < r(y)), by which the best of two differs from the anchor.
    """
    log_policy = policy.log_probabilities()
    pi, log_anchor = log_policy.exp(), anchor.log()
    best = _best_of_two(anchor, rewards)
    above = 1 - _below(anchor, rewards, equal=True)
    paid = (best / anchor).log() if jeffreys else -math.log(16) * above**2
    drift = log_policy - log_anchor
    weight = -(1 - mix) * best - mix * pi * (paid - drift) + gamma * pi * drift
    return _gradient(weight, log_policy, policy.weights)


def _estimates(policy: _Model, anchor: Tensor, rewards: Tensor, gamma: float) -> Tensor:
    """Return what steps of PROMPTS prompts each estimate, (BATCHES, 12)."""
    random = torch.Generator().manual_seed(7)
    log_policy = policy.log_probabilities()

    def drawn(chances: Tensor, number: int) -> Tensor:
        found = torch.multinomial(chances, BATCHES * number, replacement=True, generator=random)
        return found.reshape(BATCHES, -1)

    own = drawn(log_policy.detach().exp(), PROMPTS)
    pair = drawn(anchor, 2 * PROMPTS).reshape(BATCHES, PROMPTS, 2)
    best = pair.gather(-1, better(rewards[pair])[..., None]).squeeze(-1)
    log_best, log_own = log_policy[best], log_policy[own]
    weights = jbond_weights(
        log_own, anchor.log()[own], rewards[own], rewards[pair], mix=MIX, gamma=gamma
    )
    loss = jbond_loss(log_best, log_own, weights).mean(-1)  # (BATCHES,)
    by_best, by_own = torch.autograd.grad(loss.sum(), (log_best, log_own), retain_graph=True)
    rows = torch.stack(
        [
            torch.autograd.grad(each, policy.weights, retain_graph=True)[0]
            for each in log_policy.unbind()
        ]
    )
    # Each sample's gradient is its sequence's row, times what the loss gives its log-probability.
    return (by_best[..., None] * rows[best] + by_own[..., None] * rows[own]).sum(1)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
@pytest.mark.parametrize("rewards", REWARDS)
@pytest.mark.parametrize("same", [False, True], ids=["anchor apart", "anchor is the policy"])
def test_the_estimate_is_that_of_algorithm_2(rewards: str, gamma: float, same: bool) -> None:
    policy, scores = _model(0), torch.tensor(REWARDS[rewards], dtype=torch.float64)
    anchor = (policy if same else _model(1)).log_probabilities().detach().exp()
    found = _estimates(policy, anchor, scores, gamma)
    mean, error = found.mean(0), found.std(0) / BATCHES**0.5
    expected = _expected(policy, anchor, scores, gamma)
    assert ((mean - expected).abs() <= 4.5 * error).all()
    # Small enough to tell: a baseline with the sample's own return in it would be seen.
    assert error.norm() < expected.norm() / 40


def test_the_regulariser_lowers_the_divergence_from_the_anchor() -> None:
    """As equation 19 says; by the sign that the algorithm prints it would rise."""
    policy, scores = _model(0), torch.tensor(REWARDS["ties"], dtype=torch.float64)
    anchor = _model(1).log_probabilities().detach().exp()
    added = _estimates(policy, anchor, scores, 1.0) - _estimates(policy, anchor, scores, 0.0)
    log_policy = policy.log_probabilities()
    divergence = (log_policy.exp() * (log_policy - anchor.log())).sum()
    [uphill] = torch.autograd.grad(divergence, policy.weights)
    mean, error = added.mean(0), added.std(0) / BATCHES**0.5
    assert ((mean - uphill).abs() <= 4.5 * error).all()
    assert torch.dot(mean, uphill) > 0.9 * uphill.norm() ** 2


def test_it_is_not_the_jeffreys_divergence_to_the_best_of_two() -> None:
    """-log 16 differs from it by design: how far, at the anchor, by the paper's mix."""
    policy = _model(0)
    anchor = policy.log_probabilities().detach().exp()
    apart = {}
    for name, rewards in REWARDS.items():
        scores = torch.tensor(rewards, dtype=torch.float64)
        ours, theirs = (
            _expected(policy, anchor, scores, 0.0, mix=0.5, jeffreys=jeffreys)
            for jeffreys in (False, True)
        )
        apart[name] = float((ours - theirs).norm() / theirs.norm())
    expected = {"all different": 0.227, "ties": 0.068, "binary": 0.412}
    assert apart == pytest.approx(expected, abs=1e-3)


def test_best_of_two_by_drawing() -> None:
    """What the expectation calls the better of two is how often `better` chooses it."""
    anchor = _model(1).log_probabilities().detach().exp()
    scores = torch.tensor(REWARDS["ties"], dtype=torch.float64)
    pairs = torch.cartesian_prod(torch.arange(9), torch.arange(9))
    chosen = pairs.gather(-1, better(scores[pairs])[:, None]).squeeze(-1)
    chances = anchor[pairs].prod(-1)
    found = torch.zeros(9, dtype=torch.float64).index_add(0, chosen, chances)
    torch.testing.assert_close(found, _best_of_two(anchor, scores))


def test_returns() -> None:
    policy, anchor = torch.tensor([-3.0, -3.0, -3.0, -3.0]), torch.tensor([-3.0, -4.0, -3.0, -2.0])
    rewards = torch.tensor([0.0, 0.0, 1.0, math.nan])
    pairs = torch.tensor([[1.0, 2.0], [0.0, 2.0], [1.0, 1.0], [0.0, 0.0]])
    worse = -math.log(16)
    found = jbond_returns(policy, anchor, rewards, pairs)
    assert found[:3].tolist() == pytest.approx([worse, -1.0, 0.0])
    assert found[3].isnan()


def test_only_the_order_of_rewards_matters() -> None:
    random = torch.Generator().manual_seed(0)
    policy, anchor, rewards = torch.randn(3, 8, generator=random)
    pairs = torch.randn(8, 2, generator=random)
    found = jbond_weights(policy, anchor, rewards, pairs)
    cubed = jbond_weights(policy, anchor, rewards**3 + 5, pairs**3 + 5)
    for ours, expected in zip(cubed, found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_of_equal_anchor_samples_the_first_is_the_better() -> None:
    pairs = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert better(pairs).tolist() == [0, 1, 0]


def test_a_prompt_with_a_missing_reward_weighs_nothing() -> None:
    """And the others are as if it were not there."""
    random = torch.Generator().manual_seed(0)
    policy, anchor, rewards = torch.randn(3, 5, generator=random)
    pairs = torch.randn(5, 2, generator=random)
    kept = torch.tensor([0, 2, 4])
    alone = jbond_weights(policy[kept], anchor[kept], rewards[kept], pairs[kept], 0.5, 0.7)
    rewards[1], pairs[3, 1] = math.nan, math.nan
    found = jbond_weights(policy, anchor, rewards, pairs, 0.5, 0.7)
    for ours, expected in zip(found, alone, strict=True):
        torch.testing.assert_close(ours[kept], expected)
        assert ours[[1, 3]].tolist() == [0.0, 0.0]


def test_weights_are_constants() -> None:
    policy = torch.tensor([-1.0, -2.0], requires_grad=True)
    best = torch.tensor([-1.5, -1.0], requires_grad=True)
    weights = jbond_weights(policy, policy * 2, torch.zeros(2), torch.ones(2, 2), 0.5, 1.0)
    assert isinstance(weights, JBondWeights) and not weights.policy.requires_grad
    loss = jbond_loss(best, policy, weights).sum()
    by_best, by_policy = torch.autograd.grad(loss, (best, policy))
    torch.testing.assert_close(by_best, weights.best)
    torch.testing.assert_close(by_policy, weights.policy)
