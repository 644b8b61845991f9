"""Losses of preferences and rewards: TRL's numbers, and what is true of them by themselves."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from griffin.train.loss import chunked_cross_entropy
from griffin.tune.losses import (
    PreferenceKind,
    dpo_loss,
    group_advantages,
    grpo_loss,
    leave_one_out,
    margins,
    rloo_loss,
)
from tests.golden.make_trl import FILE, KINDS, REWARDS, draw, theirs
from tests.golden.make_trl import advantages as their_advantages

NAMES = [*(f"dpo {kind}" for kind in KINDS), "grpo grpo", "grpo grpo kl", "rloo"]


def _pairs(values: Tensor) -> Tensor:
    return torch.stack(values.chunk(2), dim=-1)


def _ours(name: str, policy: Tensor, case: dict[str, Any], settings: dict[str, float]) -> Tensor:
    method, _, kind = name.partition(" ")
    mask, old, advantages = case["mask"], case["old"], case["advantages"]
    sums = (policy * mask).sum(1)
    if method == "dpo":
        reference = _pairs((case["reference"] * mask).sum(1))
        lengths = _pairs(mask.sum(1))
        return dpo_loss(_pairs(sums), reference, lengths, settings["beta"], _kind(kind)).mean()
    if method == "rloo":
        return rloo_loss(sums, (old * mask).sum(1), advantages, settings["clip"]).mean()
    kl = settings["kl"] if kind == "grpo kl" else 0.0
    parts = (advantages, settings["clip"], case["reference"], kl)
    return grpo_loss(policy, old, mask, *parts).mean()


def _kind(name: str) -> PreferenceKind:
    assert name in KINDS
    return name


def _check(case: dict[str, Any], settings: dict[str, float], found: dict[str, Any]) -> None:
    assert set(found) == {*NAMES, "sft nll"}
    for name in NAMES:
        policy = case["policy"].clone().requires_grad_()
        loss = _ours(name, policy, case, settings)
        [gradient] = torch.autograd.grad(loss, policy)
        assert loss.item() == pytest.approx(found[name]["loss"], rel=1e-5, abs=1e-6), name
        expected = torch.as_tensor(found[name]["gradient"])
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6, msg=name)


def _golden() -> tuple[dict[str, Any], dict[str, Any]]:
    stored = json.loads(FILE.read_text())
    case = {name: torch.tensor(values) for name, values in stored["case"].items()}
    return stored, case


def test_equal_trl() -> None:
    """The numbers of TRL 1.16 that stand in the golden file: losses and their gradients."""
    stored, case = _golden()
    assert stored["trl"].startswith("1.16.")
    _check(case, stored["settings"], stored["losses"])


def test_tuning_on_answers_equals_trl() -> None:
    """loss_type "nll" of its SFTTrainer, from logits, and the gradient that comes to these."""
    stored, case = _golden()
    logits = case["logits"].requires_grad_()
    nats, count = chunked_cross_entropy(logits, torch.eye(11), case["targets"], case["mask"])
    [gradient] = torch.autograd.grad(nats / count, logits)
    said = logits.log_softmax(-1).gather(-1, case["targets"][..., None]).squeeze(-1)
    theirs = stored["losses"]["sft nll"]
    [expected] = torch.autograd.grad(said, logits, torch.tensor(theirs["gradient"]))
    assert (nats / count).item() == pytest.approx(theirs["loss"], rel=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_advantages_equal_trl() -> None:
    """With ties, groups of equals, rewards that are missing and a group with a single one."""
    stored, _ = _golden()
    rewards = torch.tensor([[math.nan if r is None else r for r in g] for g in stored["rewards"]])
    expected = {name: torch.tensor(each) for name, each in stored["advantages"].items()}
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(group_advantages(rewards), expected["grpo"], **close)
    torch.testing.assert_close(leave_one_out(rewards), expected["rloo"], **close)
    penalised = rewards - stored["settings"]["kl"] * torch.tensor(stored["drifts"])
    torch.testing.assert_close(leave_one_out(penalised), expected["rloo kl"], **close)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_equal_trl_itself(seed: int) -> None:
    pytest.importorskip("trl", reason="TRL is not installed")
    case = draw(seed)
    settings = {"beta": 0.05 * seed, "kl": 0.1 * seed, "clip": 0.1 * seed}
    _check(case, settings, theirs(case, **settings))
    stored, _ = _golden()
    assert stored["rewards"] == REWARDS
    for name, kind, kl in (("grpo", "grpo", 0.0), ("rloo", "rloo", 0.0), ("rloo kl", "rloo", 0.04)):
        expected = torch.tensor(stored["advantages"][name])
        torch.testing.assert_close(their_advantages(kind, kl), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_down_raises_the_chosen_answer(kind: PreferenceKind) -> None:
    policy = torch.tensor([[-4.0, -3.0], [-2.0, -6.0]], requires_grad=True)
    reference = torch.tensor([[-4.0, -3.0], [-2.5, -5.0]])
    lengths = torch.tensor([[3, 2], [2, 4]])
    loss = dpo_loss(policy, reference, lengths, 0.1, kind)
    [gradient] = torch.autograd.grad(loss.sum(), policy)
    assert (gradient[:, 0] < 0).all() and (gradient[:, 1] > 0).all()
    assert margins(policy, reference, 0.1).tolist() == pytest.approx([0.0, 0.15])


def test_nothing_flows_into_what_is_constant() -> None:
    policy = torch.zeros(2, 2, requires_grad=True)
    constant = torch.zeros(2, 2, requires_grad=True)
    scores = torch.ones(2, requires_grad=True)
    mask = torch.ones(2, 2).bool()
    for loss in (
        dpo_loss(policy, constant, torch.ones(2, 2)),
        grpo_loss(policy, constant, mask, scores, 0.2, constant, 1.0),
        rloo_loss(policy[:, 0], constant[:, 0], scores),
    ):
        found = torch.autograd.grad(loss.sum(), (policy, constant, scores), allow_unused=True)
        assert found[0] is not None and found[1:] == (None, None)


def test_a_loss_or_an_answer_that_cannot_be_is_refused() -> None:
    pair = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="sigmoid, ipo or sigmoid_norm, not 'hinge'"):
        dpo_loss(pair, pair, torch.ones(1, 2), 0.1, "hinge")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="one token at least"):
        dpo_loss(pair, pair, torch.tensor([[2, 0]]))


def test_what_stands_in_padding_is_not_read() -> None:
    """Not even where it is no number."""
    mask = torch.tensor([[True, True, False], [True, False, False]])
    policy = torch.tensor([[-1.0, -2.0, 5.0], [-0.5, 1.0, 2.0]])
    advantages = torch.tensor([1.0, -1.0])

    def losses(filler: float) -> tuple[Tensor, Tensor]:
        given = torch.where(mask, policy, filler).requires_grad_()
        other = torch.where(mask, policy - 0.1, filler)
        loss = grpo_loss(given, other, mask, advantages, 0.2, other, 0.5)
        return loss, torch.autograd.grad(loss.sum(), given)[0]

    for ours, expected in zip(losses(math.nan), losses(0.0), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_an_answer_drawn_by_the_policy_itself_gives_reinforce() -> None:
    policy = torch.tensor([-3.0, -1.0, -2.0], requires_grad=True)
    advantages = torch.tensor([0.5, -2.0, 0.0])
    loss = rloo_loss(policy, policy, advantages)
    [gradient] = torch.autograd.grad(loss.sum(), policy)
    torch.testing.assert_close(gradient, -advantages)


def test_leave_one_out_of_one_and_of_missing_ones() -> None:
    assert leave_one_out(torch.tensor([3.0])).tolist() == [0.0]
    nan = math.nan
    assert leave_one_out(torch.tensor([nan, 3.0, 1.0])).tolist() == [0.0, 2.0, -2.0]
    assert leave_one_out(torch.tensor([nan, nan])).tolist() == [0.0, 0.0]
