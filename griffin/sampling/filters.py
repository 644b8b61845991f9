"""Which tokens are left to draw from, how heavy each is, and which one a random number takes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from griffin.sampling.params import SamplingParams

_FEW = 1024  # tokens that top_p sorts; where its last one is among more, they are halved first
_BLOCK = 512  # tokens whose mass is summed first


def support(logits: Tensor, params: SamplingParams) -> Tensor | None:
    """Return the ids that may be drawn, in their order; None stands for all of them.

    The filters are min_p, then top_k, then top_p. The best token is always kept.

    logits: (V,) float32, after penalties, bias and constraint, before the temperature.
    """
    ids: Tensor | None = None
    if 0 < params.top_k < len(logits):
        ids = _best(logits, params.top_k)
    best = logits.max()
    if params.min_p:
        enough = best.double() + params.temperature * math.log(params.min_p)
        places = ((logits if ids is None else logits[ids]) >= enough).nonzero().squeeze(1)
        ids = places if ids is None else ids[places]
    if params.top_p < 1:
        places = _nucleus(logits if ids is None else logits[ids], best, params)
        ids = places if ids is None else ids[places]
    return ids


def _nucleus(logits: Tensor, best: Tensor, params: SamplingParams) -> Tensor:
    """Return the places, in order, of the fewest most probable tokens whose mass reaches top_p."""
    weights = weights_of(logits, best, params.temperature)
    total = float(weights.double().sum())
    goal = params.top_p * total
    # Those lighter than this have less than 1 - top_p of the mass together: the nucleus is among
    # the others.
    places = (weights >= (total - goal) / len(weights)).nonzero().squeeze(1)
    some = logits[places]
    # Where the last of the nucleus is; mass and count of those above that.
    near, above, before = some, 0.0, 0
    while len(near) > _FEW:
        upper = near > (near.min() + near.max()) / 2
        mass = float(weights_of(near[upper], best, params.temperature).double().sum())
        count = int(upper.sum())
        if above + mass >= goal:
            near = near[upper]
        elif count:
            near, above, before = near[~upper], above + mass, before + count
        else:
            break  # they are all equal
    near = near.sort(descending=True).values
    mass = weights_of(near, best, params.temperature).double().cumsum(0) + above
    last = int(torch.searchsorted(mass, goal))
    return places[_best(some, min(before + last + 1, len(some)))]


def weights_of(logits: Tensor, best: Tensor, temperature: float) -> Tensor:
    """Return the probabilities of logits (n,), up to a common factor: that of `best` is 1."""
    # Taking the maximum away first keeps a tiny temperature from overflowing, this bound from
    # dividing by 0.
    return (logits - best).div_(max(temperature, 1e-30)).exp_()


def log_mass(logits: Tensor) -> Tensor:
    """Return the logarithm of the sum of exp(logits) over the last dimension: (..., V) -> (...).

    A row has the same bits alone and among others, on any number of threads: sums are of blocks
    first, none of them so long that torch would share it out among threads, as it does with a
    single row of a large vocabulary.
    """
    best = logits.amax(-1, keepdim=True)
    weights = (logits - best).exp_()
    whole = weights.shape[-1] // _BLOCK
    blocks = weights[..., : whole * _BLOCK].unflatten(-1, (whole, _BLOCK)).sum(-1)
    rest = weights[..., whole * _BLOCK :].sum(-1, keepdim=True)
    return torch.cat([blocks, rest], -1).sum(-1).log_().add_(best.squeeze(-1))


def pick(weights: Tensor, u: float) -> int:
    """Return the first place at which the weights (n,) so far exceed the share u < 1 of them all.

    Sums are in float64, of blocks first: of a large vocabulary only one block is looked at closely.
    """
    whole = len(weights) - len(weights) % _BLOCK
    rest = weights[whole:].sum(0, keepdim=True)
    mass = torch.cat([weights[:whole].view(-1, _BLOCK).sum(1), rest]).double().cumsum(0)
    goal = mass[-1] * u
    block = _first_above(mass, goal)
    start = block * _BLOCK
    within = weights[start : start + _BLOCK].double().cumsum(0)
    return start + _first_above(within, goal - mass[block - 1] if block else goal)


def _first_above(mass: Tensor, goal: Tensor) -> int:
    """Return where a growing mass first exceeds a goal: what is there has mass of its own."""
    place = int(torch.searchsorted(mass, goal, right=True))
    # The goal was so near the whole mass that it was rounded up to it, or beyond.
    return place if place < len(mass) else int(torch.searchsorted(mass, mass[-1]))


def best_ids(values: Tensor, n: int) -> Tensor:
    """Return the ids of the n largest of values (V,), largest first; of equals the lowest first."""
    ids = _best(values, n)
    return ids[values[ids].argsort(descending=True, stable=True)]


def _best(values: Tensor, n: int) -> Tensor:
    """Return the places of the n largest of values (V,), in order; among equals the lowest win."""
    least = values.topk(n).values[-1]
    places = (values >= least).nonzero().squeeze(1)
    if surplus := len(places) - n:
        equal = (values[places] == least).nonzero().squeeze(1)
        wanted = torch.ones_like(places, dtype=torch.bool)
        wanted[equal[-surplus:]] = False
        places = places[wanted]
    return places
