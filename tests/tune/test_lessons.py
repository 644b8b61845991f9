"""What each method learns from: which answers, and what it cannot tell apart."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from griffin.train.recipe import TuneRecipe
from griffin.tune.heard import Heard, measures, padded, values_of
from griffin.tune.lessons import method_of
from griffin.tune.reward import Reward
from griffin.tune.sample import Drawn

NAN = torch.nan


def answer(prompt: int, which: int, tokens: int = 2, ended: bool = True) -> Drawn:
    ids = tuple(10 * prompt + which for _ in range(tokens))
    return Drawn((prompt,), ids, (-0.5 - which / 8,) * tokens, ended)


def heard(rewards: list[list[float]], anchor_rewards: Sequence[list[float]] = ()) -> Heard:
    """Return what a step heard that gave these rewards."""
    answers = [[answer(p, n) for n in range(len(some))] for p, some in enumerate(rewards)]
    anchors = [
        [answer(p, 5 + n) for n in range(len(some))] for p, some in enumerate(anchor_rewards)
    ]
    own = [each for some in answers for each in some]
    found = [[value - 0.25 for value in each.logprobs] for each in own]
    kinds = torch.float64
    values = torch.tensor(rewards, dtype=kinds), torch.tensor(anchor_rewards, dtype=kinds)
    return Heard(answers, values[0], found, anchors, values[1], found if anchors else [])


def tune(method: str, **given: float) -> TuneRecipe:
    return TuneRecipe(method=method, reward="exact", answers=2, **given)  # pyright: ignore


def test_jbond_learns_from_the_better_anchor_sample_of_equals_the_first():
    rewards = [[0.0], [0.5], [1.0], [0.2]]
    anchors = [[1.0, 2.0], [2.0, 1.0], [0.5, 0.5], [0.3, NAN]]
    method = method_of(tune("jbond"))
    assert (method.answers, method.anchors) == (1, 2)
    lesson = method.lesson(heard(rewards, anchors))
    assert [unit[0].ids[0] % 10 for unit in lesson.units[:3]] == [6, 5, 5]
    assert [unit[1].ids[0] for unit in lesson.units] == [0, 10, 20, 30]
    assert lesson.ties == 0.25
    policy = torch.zeros(4, 2, 2, requires_grad=True)
    mask = torch.ones(4, 2, 2, dtype=torch.bool)
    lesson.loss(policy, mask, torch.arange(4)).sum().backward()
    assert policy.grad is not None
    # Likelier are the better samples; a prompt of which nothing can be compared teaches nothing.
    assert policy.grad[:3, 0].lt(0).all() and not policy.grad[3].any()
    # The two that were worse than both samples are to be less likely than the third.
    assert policy.grad[0, 1].gt(0).all() and policy.grad[2, 1].lt(0).all()


def test_a_part_of_the_units_is_a_part_of_the_loss():
    cases = {
        "jbond": heard([[0.0], [3.0], [1.0]], [[1.0, 2.0], [2.0, 1.0], [2.0, 4.0]]),
        "grpo": heard([[0.0, 1.0], [2.0, NAN], [1.0, 3.0]]),
        "rloo": heard([[0.0, 1.0], [2.0, 5.0], [1.0, 3.0]]),
    }
    for name, found in cases.items():
        lesson = method_of(tune(name, kl=0.1, gamma=0.2)).lesson(found)
        shape = len(lesson.units), len(lesson.units[0]), 2
        policy = -torch.rand(shape, generator=torch.Generator().manual_seed(1))
        mask = torch.ones(shape, dtype=torch.bool)
        whole = lesson.loss(policy, mask, torch.arange(shape[0]))
        assert whole.abs().max() > 0.01
        for which in (torch.tensor([2, 0]), torch.tensor([1])):
            part = lesson.loss(policy[which], mask[which], which)
            torch.testing.assert_close(part, whole[which])


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_groups_that_are_all_alike_are_ties(name: str):
    rewards = [[1.0, 1.0], [1.0, 2.0], [NAN, 1.0], [NAN, NAN]]
    assert method_of(tune(name)).lesson(heard(rewards)).ties == 0.75


def test_what_is_measured():
    answers = [[answer(0, 0, 3), answer(0, 1, 1, ended=False)], [answer(1, 0), answer(1, 1)]]
    found = measures(answers, torch.tensor([[1.0, 3.0], [NAN, 5.0]], dtype=torch.float64))
    assert found == {
        "reward": 3.5,  # of the prompts' means, 2 and 5
        "reward_error": pytest.approx(1.5),
        "answer_tokens": 2.0,
        "ended": 0.75,
    }
    assert measures(answers[:1], torch.tensor([[1.0, 2.0]]))["reward_error"] is None
    assert measures(answers[:1], torch.tensor([[NAN, NAN]]))["reward"] is None
    far = heard([[1.0, 2.0]], [[0.0, 0.0]]).measured()
    assert far["kl_start"] == far["kl_anchor"] == pytest.approx(0.5)


def test_rewards_as_numbers():
    found = values_of([[Reward(1.5), Reward(None, "hung")], [Reward(0.0), Reward(-1.0)]])
    assert found.dtype == torch.float64
    assert torch.equal(found.nan_to_num(9.0), torch.tensor([[1.5, 9.0], [0.0, -1.0]]).double())
    assert padded([[1.0], [2.0, 3.0]], torch.ones(2, 3)).tolist() == [[1, 0, 0], [2, 3, 0]]
