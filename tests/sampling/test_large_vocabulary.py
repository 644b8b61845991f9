"""What a large vocabulary is spared changes no bit: against whole rows, looked at in full."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from griffin.sampling import Sampler, SamplingParams, best_ids, filters
from griffin.sampling.filters import pick

V = 40_001


def log_mass(logits: Tensor) -> Tensor:
    weights = (logits - logits.max()).exp()
    whole = len(logits) // 512 * 512
    sums = torch.cat([weights[:whole].view(-1, 512).sum(1), weights[whole:].sum(0, keepdim=True)])
    return sums.sum().log() + logits.max()


def shaped(logits: Tensor, params: SamplingParams, prompt: list[int], answer: list[int]) -> Tensor:
    """Return logits with every penalty worked out for every token."""
    counts = torch.zeros(V, dtype=torch.int32)
    for id, count in Counter(answer).items():
        counts[id] = count
    seen = counts > 0
    seen[prompt] = True
    if params.repetition_penalty != 1:
        penalty = params.repetition_penalty
        scaled = torch.where(logits > 0, logits / penalty, logits * penalty)
        logits = torch.where(seen, scaled, logits)
    logits = (
        logits - params.frequency_penalty * counts - params.presence_penalty * (counts > 0).float()
    )
    for id, bias in params.logit_bias.items():
        logits[id] += bias
    return logits


def chosen(logits: Tensor, params: SamplingParams, u: float) -> int:
    """Return what a random number takes, of tokens that are all sorted."""
    if params.temperature == 0:
        return int((logits == logits.max()).nonzero()[0])
    weights = ((logits - logits.max()) / params.temperature).exp()
    order = logits.argsort(descending=True, stable=True)
    if params.min_p:
        enough = float(logits.max()) + params.temperature * math.log(params.min_p)
        order = order[: int((logits >= enough).sum())]
    if params.top_k:
        kept = logits.argsort(descending=True, stable=True)[: params.top_k]
        order = order[: len(kept)]
    if params.top_p < 1:
        mass = weights[order].double().cumsum(0)
        order = order[: int((mass < params.top_p * mass[-1]).sum()) + 1]
    ids = order.sort().values
    return int(ids[pick(weights[ids], u)])


def drawn(dice: random.Random) -> SamplingParams:
    def now_and_then(*values: Any) -> Any:
        return dice.choice((None, *values))

    fields: dict[str, Any] = {
        "temperature": dice.choice((0, 0.3, 1, 1, 1.7)),
        "top_k": now_and_then(1, 3, 19, 50, 3000),
        "top_p": now_and_then(0.2, 0.9, 0.999),
        "min_p": now_and_then(0.01, 0.3),
        "repetition_penalty": now_and_then(0.7, 1.1, 2),
        "presence_penalty": now_and_then(-1, 0.4),
        "frequency_penalty": now_and_then(-0.5, 0.3),
        "logit_bias": now_and_then({0: 5.0, 2: -100.0}),
        "logprobs": now_and_then(1, 19, 100),
        "seed": dice.getrandbits(30),
    }
    return SamplingParams(**{k: v for k, v in fields.items() if v is not None})


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(16))
def test_a_sampler_is_the_formula_over_whole_rows(seed: int) -> None:
    dice = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(4):
        params = drawn(dice)
        prompt = [dice.randrange(V) for _ in range(dice.choice((0, 5, 500)))]
        sampler, answer = Sampler(params, V, prompt), list[int]()
        numbers = torch.Generator().manual_seed(params.seed or 0)
        for _ in range(4):
            logits = torch.randn(V, generator=generator) * dice.choice((0.5, 3))
            if dice.random() < 0.3:
                logits = logits.round()  # many are alike
            sample = sampler.sample(logits)
            u = torch.rand((), dtype=torch.float64, generator=numbers).item()
            expected = chosen(shaped(logits, params, prompt, answer), params, u)
            assert sample.id == expected
            total = log_mass(logits)
            assert sample.logprob == float(logits[sample.id] - total)
            best = logits.argsort(descending=True, stable=True)[: params.logprobs or 0]
            assert [id for id, _ in sample.alternatives] == best.tolist()
            assert [p for _, p in sample.alternatives] == (logits[best] - total).tolist()
            answer.append(sample.id)


@pytest.mark.parametrize("n", [1, 7, 19, 20, 400])
def test_the_best_of_many_are_found_by_their_blocks(n: int) -> None:
    for width in (V, 40_960):  # with a rest behind the last block, and without
        values = torch.randn(width, generator=torch.Generator().manual_seed(n))
        values[-3:] = 9.0
        values[100:200] = values[100]
        order = values.argsort(descending=True, stable=True)
        assert best_ids(values, n).tolist() == order[:n].tolist()
        assert best_ids(values.round(), n).tolist() == (
            values.round().argsort(descending=True, stable=True)[:n].tolist()
        )


@pytest.mark.parametrize("top_p", [0.3, 0.95, 0.999])
@pytest.mark.parametrize("more", [0, 6, -2, -6])  # of the tokens that are in the sample
def test_a_nucleus_is_found_whatever_a_sample_says(more: float, top_p: float, monkeypatch) -> None:
    """The sample is a hint of how many tokens are looked at; a wrong one costs a second look."""
    logits = torch.randn(V, generator=torch.Generator().manual_seed(1))
    logits[:: filters._EVERY] += more
    looks: list[int] = []
    look = filters._at_least

    def counted(values: Tensor, least: float) -> Tensor:
        places = look(values, least)
        if len(values) == V:
            looks.append(len(places))
        return places

    monkeypatch.setattr(filters, "_at_least", counted)
    params = SamplingParams(top_p=top_p, temperature=0.7)
    found = filters.support(logits, params)
    weights = ((logits - logits.max()) / 0.7).exp()
    order = weights.argsort(descending=True, stable=True)
    mass = weights[order].double().cumsum(0)
    count = int((mass < top_p * mass[-1]).sum()) + 1
    assert found is not None and found.tolist() == order[:count].sort().values.tolist()
    assert len(looks) == 1 + (more == 6 or (more, top_p) in {(-2, 0.95), (-2, 0.999)})
    if more == 0:
        assert looks[0] < 2 * count + 500
