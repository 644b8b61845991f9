"""When an answer may end, and with which ids it is made."""

from __future__ import annotations

import pytest
import torch

from griffin.sampling import Sampler, SamplingParams
from tests.sampling.test_constraint import Fixed, row

V = 40


def drawn(params: SamplingParams, count: int, **given) -> list[int]:
    sampler = Sampler(params, V, **given)
    return [sampler.sample(row(100 + step)).id for step in range(count)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_end_before_so_many_tokens(temperature):
    ends = frozenset(range(0, V, 2))
    for seed in range(20):
        params = SamplingParams(temperature=temperature, seed=seed, max_tokens=12)
        free = drawn(params, 12)
        bound = drawn(params.replace(min_tokens=6), 12, end_ids=ends)
        assert not ends.intersection(bound[:6]) and bound[6:] == free[6:]
        assert bound[:6] == drawn(params.replace(suppress_ids=tuple(ends)), 6)
        assert ends.intersection(free[:6]) or temperature == 0


def test_where_nothing_else_may_be_said_it_ends():
    params = SamplingParams(seed=0, min_tokens=5)
    assert drawn(params.replace(allowed_ids=[3, 4]), 2, end_ids=[3, 4])[0] in (3, 4)
    assert drawn(params, 1, constraint=Fixed([7]), end_ids=[7]) == [7]
    assert drawn(params, 1, constraint=Fixed([7, 9]), end_ids=[7]) == [9]


def test_the_allowed_alone_are_as_under_a_constraint():
    some = [1, 4, 5, 17, 30]
    for params in (
        SamplingParams(temperature=0),
        SamplingParams(top_k=3),
        SamplingParams(top_p=0.7),
    ):
        for seed in range(20):
            params = params.replace(seed=seed)
            assert drawn(params.replace(allowed_ids=some), 8) == drawn(
                params, 8, constraint=Fixed(some)
            )


def test_a_first_token_alone():
    logits = torch.zeros(V)
    logits[5], logits[6] = 9, 8
    sampler = Sampler(SamplingParams(temperature=0, begin_suppress_ids=(5,)), V)
    assert [sampler.sample(logits).id for _ in range(3)] == [6, 5, 5]
