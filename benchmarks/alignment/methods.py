"""One run: a policy that begins as the base learns from its own answers, and is measured."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.alignment.learner import Answers, draw, prompt_ids, stand, token_logprobs
from benchmarks.alignment.tasks import Item, Task
from griffin.model import Griffin
from griffin.tune.losses import (
    better,
    group_advantages,
    grpo_loss,
    jbond_loss,
    jbond_weights,
    leave_one_out,
    rloo_loss,
)

SAMPLES = 192  # answers of a step, whatever the method
ANSWERS = {"jbond": 3, "rloo": 2, "grpo": 8}  # to a prompt
WARMUP = 20  # steps
HELD_OUT, EACH = 256, 1  # prompts, and answers to each


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What decides a run. kl: of REINFORCE alone. mix, eta: of J-BOND."""

    task: str
    method: str
    rate: float
    seed: int
    steps: int
    kl: float = 0.0
    mix: float = 0.5
    eta: float = 0.02

    @property
    def name(self) -> str:
        """A file's name."""
        strength = {"rloo": f"-{self.kl:g}", "jbond": f"-{self.eta:g}"}.get(self.method, "")
        task = self.task.replace(", ", "-")
        return f"{task}-{self.method}{strength}-{self.rate:g}-{self.seed}-{self.steps}"


@dataclass
class Learning:
    """What a step works with. anchor: of J-BOND."""

    setting: Setting
    task: Task
    base: Griffin
    policy: Griffin
    anchor: Griffin
    random: torch.Generator

    def answers(self, model: Griffin, items: Sequence[Item], n: int) -> tuple[Answers, Tensor]:
        """Draw n answers to each item, one item's side by side; return them and rewards, (P, n)."""
        several = [item for item in items for _ in range(n)]
        answers = draw(model, prompt_ids(several), self.task.longest, self.random)
        rewards = torch.tensor(self.task.score(several, answers.texts()))
        return answers, rewards.view(-1, n)


def _jbond(learning: Learning, items: Sequence[Item]) -> tuple[Tensor, float]:
    """Algorithm 2 of arXiv:2407.14622: one answer of the policy, two of the anchor."""
    setting = learning.setting
    own, rewards = learning.answers(learning.policy, items, 1)
    theirs, anchor_rewards = learning.answers(learning.anchor, items, 2)
    first = torch.arange(len(items)) * 2
    best = theirs.select(first + better(anchor_rewards))
    # One pass for both.
    policy, chosen = token_logprobs(learning.policy, own.beside(best)).sum(1).chunk(2)
    with torch.no_grad():
        anchor = token_logprobs(learning.anchor, own).sum(1)
    weights = jbond_weights(policy, anchor, rewards[:, 0], anchor_rewards, setting.mix)
    loss = jbond_loss(chosen, policy, weights)
    ties = anchor_rewards[:, 0] == anchor_rewards[:, 1]
    return loss.mean(), float(ties.float().mean())


def _rloo(learning: Learning, items: Sequence[Item]) -> tuple[Tensor, float]:
    """REINFORCE, leave-one-out; the divergence from the base is paid for in the reward."""
    n = ANSWERS["rloo"]
    answers, rewards = learning.answers(learning.policy, items, n)
    policy = token_logprobs(learning.policy, answers).sum(1)
    with torch.no_grad():
        base = token_logprobs(learning.base, answers).sum(1)
    paid = rewards - learning.setting.kl * (policy.detach() - base).view(-1, n)
    loss = rloo_loss(policy, policy.detach(), leave_one_out(paid).view(-1))
    return loss.mean(), _tied(rewards)


def _grpo(learning: Learning, items: Sequence[Item]) -> tuple[Tensor, float]:
    """GRPO with one step on each batch and no penalty."""
    answers, rewards = learning.answers(learning.policy, items, ANSWERS["grpo"])
    policy = token_logprobs(learning.policy, answers)
    advantages = group_advantages(rewards).view(-1)
    loss = grpo_loss(policy, policy.detach(), answers.mask, advantages)
    return loss.mean(), _tied(rewards)


def _tied(rewards: Tensor) -> float:
    """Return the share of prompts whose answers all have one reward."""
    return float((rewards == rewards[:, :1]).all(1).float().mean())


METHODS: dict[str, Callable[[Learning, Sequence[Item]], tuple[Tensor, float]]] = {
    "jbond": _jbond,
    "rloo": _rloo,
    "grpo": _grpo,
}


def learn(setting: Setting, task: Task, base: Griffin, measurements: int = 5) -> dict[str, Any]:
    """Do a run; return its setting and what it measured at the start and at equal distances.

    Prompts, their answers and the held-out ones are functions of the seed and the step. The
    held-out prompts are the same for all runs of a task.
    """
    begun = time.process_time()
    random = torch.Generator().manual_seed(setting.seed)
    policy, anchor = copy.deepcopy(base), copy.deepcopy(base).requires_grad_(False)
    learning = Learning(setting, task, base, policy, anchor, random)
    optimizer = torch.optim.AdamW(
        policy.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    held_out, points, ties = task.items("held out", HELD_OUT), list[dict[str, Any]](), list[float]()
    for step in range(setting.steps + 1):
        if step * measurements % setting.steps < measurements:
            chance = torch.Generator().manual_seed(1000 * setting.seed + step)
            found = stand(policy, base, task, held_out, EACH, chance)
            points.append({"step": step, **asdict(found)})
        if step == setting.steps:
            break
        items = task.items(f"prompts {setting.seed} {step}", SAMPLES // ANSWERS[setting.method])
        loss, tied = METHODS[setting.method](learning, items)
        ties.append(tied)
        for group in optimizer.param_groups:
            group["lr"] = setting.rate * min(1.0, (step + 1) / WARMUP)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        if setting.method == "jbond":
            with torch.no_grad():
                for theirs, own in zip(anchor.parameters(), policy.parameters(), strict=True):
                    theirs.lerp_(own, setting.eta)
    return {
        **asdict(setting),
        "points": points,
        "ties": statistics.fmean(ties),
        "seconds": time.process_time() - begun,
    }


def best_of(
    task: Task, base: Griffin, seed: int, most: int = 64, parts: int = 8
) -> list[dict[str, float]]:
    """Return reward and divergence of the best of N answers of the base, N = 1, 2, 4, ... most.

    The reward is the mean over held-out prompts of the expected best of N out of `most` answers,
    and `error` its standard error. The divergence is log N - (N - 1) / N, exact where no two
    rewards are equal and too large otherwise. ties: the share of pairs of answers to a prompt that
    are equal in reward.
    """
    items = [item for item in task.items("held out", HELD_OUT) for _ in range(most // parts)]
    random = torch.Generator().manual_seed(seed)
    drawn = [draw(base, prompt_ids(items), task.longest, random).texts() for _ in range(parts)]
    rewards = torch.tensor([task.score(items, texts) for texts in drawn])
    ranked = rewards.view(parts, HELD_OUT, -1).transpose(0, 1).reshape(HELD_OUT, most).sort(1)[0]
    equal = (ranked[:, :, None] == ranked[:, None]).double().sum((1, 2)) - most
    ties = float((equal / (most * (most - 1))).mean())
    found, count = list[dict[str, float]](), 1
    while count <= most:
        # How probable it is that the one of rank r is the best of `count` that are chosen.
        rank = torch.arange(most, dtype=torch.float64)
        chosen = _log_choices(rank, count - 1) - _log_choices(torch.tensor(float(most)), count)
        best = (ranked.double() * chosen.exp()).sum(1)
        found.append(
            {
                "n": count,
                "reward": float(best.mean()),
                "error": float(best.std()) / HELD_OUT**0.5,
                "divergence": float(torch.tensor(float(count)).log()) - (count - 1) / count,
                "ties": ties,
            }
        )
        count *= 2
    return found


def _log_choices(of: Tensor, count: int) -> Tensor:
    """Return the logarithm of the ways to choose `count` of some; -inf where there are too few."""
    of, some = of.double(), torch.tensor(float(count), dtype=torch.float64)
    ways = torch.lgamma(of + 1) - torch.lgamma(some + 1) - torch.lgamma((of - some).clamp(0) + 1)
    return torch.where(of >= some, ways, -torch.inf)
