"""Sampling under a constraint: as if what is not allowed were not there."""

from __future__ import annotations

import pytest
import torch

from griffin.sampling import ConstraintError, Sampler, SamplingParams

V = 40
PARAMS = [
    SamplingParams(temperature=0),
    SamplingParams(temperature=0.7),
    SamplingParams(top_k=5),
    SamplingParams(top_k=30),  # more than are allowed
    SamplingParams(top_p=0.6),
    SamplingParams(min_p=0.1, temperature=1.5),
    SamplingParams(min_p=0.02, top_k=9, top_p=0.8, temperature=2.0),
]


class Fixed:
    """Allow the same ids always; over after `last`."""

    def __init__(self, ids, size=V, last=None):
        mask = torch.zeros(size, dtype=torch.bool)
        mask[list(ids)] = True
        self.mask: torch.Tensor | None = mask
        self.taken = []
        self.last = last

    def allowed(self):
        return self.mask

    def accept(self, id):
        self.taken.append(id)
        return id == self.last


def row(seed: int) -> torch.Tensor:
    return 3 * torch.randn(V, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("params", PARAMS)
def test_it_is_sampling_among_the_allowed_alone(params):
    ids = torch.tensor([1, 4, 5, 17, 18, 30, 39])
    for seed in range(60):
        mine, own = params.replace(seed=seed), Fixed(ids.tolist())
        sampler, few = Sampler(mine, V, constraint=own), Sampler(mine, len(ids))
        for step in range(4):
            logits = row(100 * seed + step)
            sample = sampler.sample(logits)
            assert sample.id == ids[few.sample(logits[ids]).id]
            assert sample.logprob == pytest.approx(
                float(logits.log_softmax(0)[sample.id]), abs=1e-5
            )
        assert len(own.taken) == 4 and not sampler.finished


def test_ties_go_to_the_lowest_allowed_id():
    assert (
        Sampler(SamplingParams(temperature=0), V, constraint=Fixed([7, 9])).sample(torch.ones(V)).id
        == 7
    )


def test_log_probabilities_are_the_models_own():
    logits = row(0)
    sample = Sampler(SamplingParams(seed=0, logprobs=3), V, constraint=Fixed([0])).sample(logits)
    assert sample.id == 0
    assert [id for id, _ in sample.alternatives] == logits.topk(3).indices.tolist()


def test_it_comes_after_the_bias():
    """What a bias forbids is chosen where nothing else is allowed; what it demands is not, if not
    allowed."""
    params = SamplingParams(seed=0, logit_bias={3: -100.0, 8: 100.0})
    assert Sampler(params, V, constraint=Fixed([3])).sample(row(1)).id == 3


def test_none_allows_all_and_costs_nothing():
    own = Fixed([])
    own.mask = None
    for seed in range(20):
        free, bound = (Sampler(SamplingParams(seed=seed), V, constraint=c) for c in (None, own))
        assert free.sample(row(seed)) == bound.sample(row(seed))


def test_the_end():
    sampler = Sampler(SamplingParams(seed=0), V, constraint=Fixed([2], last=2))
    assert not sampler.finished
    sampler.sample(row(0))
    assert sampler.finished


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_nothing_is_left(temperature):
    params = SamplingParams(temperature=temperature, seed=0)
    with pytest.raises(ConstraintError, match="allows no token"):
        Sampler(params, V, constraint=Fixed([])).sample(row(0))
    logits = row(0)
    logits[5] = -torch.inf
    with pytest.raises(ConstraintError, match="allows no token"):
        Sampler(params, V, constraint=Fixed([5])).sample(logits)
    with pytest.raises(ValueError, match=r"marks \(39,\) ids; this row chooses among 40"):
        Sampler(params, V, constraint=Fixed([5], size=39)).sample(row(0))
