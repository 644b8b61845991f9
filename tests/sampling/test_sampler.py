"""Sampling against slow formulas written another way, in numpy."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin.sampling import Sampler, SamplingParams, best_ids, log_mass, support
from griffin.sampling.filters import pick


def slow_distribution(logits, params, prompt=(), answer=()):
    """Return the exact probabilities of the next token, a dict, by loops over plain floats."""
    values = [float(x) for x in logits]
    for i in set(prompt) | set(answer):
        r = params.repetition_penalty
        values[i] = values[i] / r if values[i] > 0 else values[i] * r
    for i, n in Counter(answer).items():
        values[i] -= params.presence_penalty + n * params.frequency_penalty
    for i, b in params.logit_bias.items():
        values[i] += b
    ranked = sorted(range(len(values)), key=lambda i: (-values[i], i))
    if params.temperature == 0:
        return {ranked[0]: 1.0}
    weight = {i: np.exp((values[i] - values[ranked[0]]) / params.temperature) for i in ranked}
    ranked = [i for i in ranked if weight[i] >= params.min_p]
    if params.top_k:
        ranked = ranked[: params.top_k]
    total = sum(weight[i] for i in ranked)
    kept, mass = [], 0.0
    for i in ranked:
        if mass >= params.top_p * total:
            break
        kept.append(i)
        mass += weight[i]
    return {i: weight[i] / mass for i in kept}


def row(seed: int, n: int = 40) -> torch.Tensor:
    return 3 * torch.randn(n, generator=torch.Generator().manual_seed(seed))


CASES = [
    SamplingParams(temperature=0.7),
    SamplingParams(top_k=5),
    SamplingParams(top_p=0.6),
    SamplingParams(min_p=0.1, temperature=1.5),
    SamplingParams(min_p=0.02, top_k=9, top_p=0.8, temperature=2.0),
    SamplingParams(repetition_penalty=1.8, top_p=0.9),
    SamplingParams(presence_penalty=1.5, frequency_penalty=0.5, top_k=12),
    SamplingParams(frequency_penalty=-0.5, repetition_penalty=0.7, top_k=4),
    SamplingParams(logit_bias={3: 4.0, 7: -100.0}, top_k=6),
]


@pytest.mark.sweep
@pytest.mark.parametrize("params", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_draws_follow_the_slow_formula(params, seed):
    logits, prompt = row(seed), [1, 2, 2, 30]
    answer = [4, 4, 30, 8]
    sampler = Sampler(params.replace(seed=seed), len(logits), prompt)
    for i in answer:
        sampler.took(i)
    expected = slow_distribution(logits, params, prompt, answer)
    shaped = sampler._shape(logits)
    draws = Counter(sampler._draw(shaped, float(shaped.max())) for _ in range(3000))
    assert set(draws) <= set(expected)
    for i, p in expected.items():
        # Six standard deviations: about one failure in 500 million honest draws, and the seed is
        # fixed.
        assert abs(draws[i] - 3000 * p) <= 6 * np.sqrt(3000 * p * (1 - p)) + 1, (i, p, draws[i])


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.integers(-4, 4), min_size=1, max_size=30),
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    top_k=st.integers(0, 12),
    top_p=st.sampled_from([0.013, 0.31, 0.77, 1.0]),
    min_p=st.sampled_from([0.0, 0.011, 0.57]),
)
def test_support_is_exact_with_ties(values, temperature, top_k, top_p, min_p):
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    logits = torch.tensor(values, dtype=torch.float32)
    ids = support(logits, params)
    kept = list(range(len(values))) if ids is None else ids.tolist()
    assert kept == sorted(slow_distribution(logits, params))


def test_a_flat_row_larger_than_the_fast_path():
    logits = torch.zeros(5000)
    assert support(logits, SamplingParams(top_p=0.5)).tolist() == list(range(2500))


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
def test_a_wide_row_is_cut_where_sorting_it_would(top_p):
    logits = row(11, 6000)
    logits[1000:3000] = logits[500]  # a crowd of equals
    order = logits.argsort(descending=True, stable=True)
    mass = torch.softmax(logits.double(), 0)[order].cumsum(0)
    kept = order[: int((mass < top_p).sum()) + 1]
    assert support(logits, SamplingParams(top_p=top_p)).tolist() == sorted(kept.tolist())


@pytest.mark.parametrize("count", [511, 512, 513, 1024, 5000])
def test_a_draw_from_many_blocks_is_the_one_of_a_plain_sum(count):
    logits = row(count, count)
    mass = torch.softmax(logits.double(), 0).cumsum(0)
    for seed in range(200):
        u = torch.rand((), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        expected = int(torch.searchsorted(mass, u, right=True))
        assert Sampler(SamplingParams(seed=seed), count).sample(logits).id == expected


def test_a_draw_at_the_very_end_takes_a_token_that_has_mass():
    weights = torch.rand(1500, generator=torch.Generator().manual_seed(0))
    weights[1400:] = 0
    for u in (1 - 2**-53, 1.0):
        assert pick(weights, u) == 1399
    assert pick(torch.tensor([0.0, 0.0, 1.0, 0.0]), 0.0) == 2


def test_greedy_takes_the_lowest_id_among_equals_and_equals_top_k_1():
    logits = torch.tensor([0.0, 2.0, 1.0, 2.0, 2.0])
    assert Sampler(SamplingParams(temperature=0), 5).sample(logits).id == 1
    assert {Sampler(SamplingParams(top_k=1, seed=s), 5).sample(logits).id for s in range(20)} == {1}
    assert best_ids(logits, 4).tolist() == [1, 3, 4, 2]


def test_a_tiny_temperature_does_not_overflow():
    sampler = Sampler(SamplingParams(temperature=1e-300, seed=0), 40)
    assert sampler.sample(row(3)).id == int(row(3).argmax())


def test_logprobs_are_the_models_own_before_any_filter():
    logits = row(5)
    params = SamplingParams(
        temperature=0.2, top_k=2, logit_bias={0: 50.0}, repetition_penalty=2.0, logprobs=3, seed=1
    )
    sample = Sampler(params, 40, range(40)).sample(logits)
    exact = logits.double().numpy()
    exact = exact - np.log(np.exp(exact).sum())
    assert sample.id == 0 and sample.logprob == pytest.approx(exact[0], abs=1e-5)
    order = sorted(range(40), key=lambda i: -exact[i])[:3]
    assert [i for i, _ in sample.alternatives] == order
    assert [p for _, p in sample.alternatives] == pytest.approx([exact[i] for i in order], abs=1e-5)


def test_penalties_count_what_the_sampler_chose():
    sampler = Sampler(SamplingParams(temperature=0, presence_penalty=2.0), 3)
    logits = torch.tensor([1.5, 0.5, 0.0])
    assert [sampler.sample(logits).id for _ in range(4)] == [0, 1, 2, 0]
    plain = Sampler(SamplingParams(temperature=0, repetition_penalty=10.0), 3, [0])
    assert plain.sample(logits).id == 1


def test_a_seed_repeats_and_a_fresh_one_is_reported():
    def draws(seed):
        sampler = Sampler(SamplingParams(seed=seed), 40)
        return [sampler.sample(row(i)).id for i in range(30)], sampler.seed

    assert draws(7) == draws(7)
    assert draws(7)[0] != draws(8)[0]
    ids, seed = draws(None)
    assert draws(seed)[0] == ids
    assert draws(None)[1] != seed


def test_sampling_leaves_logits_alone():
    logits = row(9)
    before = logits.clone()
    params = SamplingParams(
        repetition_penalty=2.0, presence_penalty=1.0, logit_bias={1: 3.0}, min_p=0.1
    )
    Sampler(params, 40, [1]).sample(logits)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(bad):
    logits = row(0)
    logits[3] = bad
    with pytest.raises(FloatingPointError, match="not finite"):
        Sampler(SamplingParams(), 40).sample(logits)


def test_ids_beyond_the_vocabulary_are_refused():
    with pytest.raises(
        ValueError, match="logit_bias names token 40; the vocabulary has ids 0 to 39"
    ):
        Sampler(SamplingParams(logit_bias={40: 1.0}), 40)
    with pytest.raises(ValueError, match="stop_ids names token 99"):
        Sampler(SamplingParams(stop_ids=[99]), 40)


@pytest.mark.parametrize("size", [1, 89, 512, 1000, 40_001])
def test_the_mass_of_a_row_has_the_same_bits_in_company(size):
    """On one thread and on several, which torch's own sum of a large vocabulary has not."""
    logits = 5 * torch.randn(7, size, generator=torch.Generator().manual_seed(size))
    before, found = torch.get_num_threads(), list[torch.Tensor]()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found += [log_mass(logits), torch.stack([log_mass(row) for row in logits])]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found)
    torch.testing.assert_close(found[0], logits.double().logsumexp(1).float())
