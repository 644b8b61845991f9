"""Which tokens are left to draw from, how heavy each is, and which one a random number takes.

Of a vocabulary of 256,000 each pass over a row takes time that a token waits, so a row is looked at
as seldom as can be, and what one function knows of it is handed to the next. On the CPU numpy finds
and sorts: torch's own argmax, nonzero and sort take several times as long.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from griffin.sampling.params import SamplingParams

_BLOCK = 512  # tokens whose mass is summed first
_EVERY = 61  # token is in a sample of a large vocabulary
_ERRORS = 3  # standard errors of a sample that are reckoned with


def top(logits: Tensor) -> tuple[int, float]:
    """Return the lowest id of the largest of logits (V,), and its value; a NaN is the largest."""
    if logits.device.type != "cpu":
        place = int(logits.argmax())
        return place, float(logits[place])
    values = logits.numpy()
    place = int(values.argmax())
    return place, float(values[place])


def support(
    logits: Tensor, params: SamplingParams, best: float | None = None, weights: Tensor | None = None
) -> Tensor | None:
    """Return the ids that may be drawn, in their order; None stands for all of them.

    The filters are min_p, then top_k, then top_p. The best token is always kept.

    logits:  (V,) float32, after penalties, bias and constraint, before the temperature.
    best:    the largest of them. weights: (V,), `weights_of` them. Where they are known.
    """
    ids: Tensor | None = None
    best = top(logits)[1] if best is None else best
    if 0 < params.top_k < len(logits):
        ids = _best(logits, params.top_k)
    if params.min_p:
        enough = best + params.temperature * math.log(params.min_p)
        places = _at_least(logits if ids is None else logits[ids], enough)
        ids = places if ids is None else ids[places]
    if params.top_p < 1:
        if ids is not None:
            return ids[_nucleus(logits[ids], best, params)]
        return _nucleus(logits, best, params, weights)
    return ids


def _nucleus(
    logits: Tensor, best: float, params: SamplingParams, weights: Tensor | None = None
) -> Tensor:
    """Return the places, in order, of the fewest most probable tokens whose mass reaches top_p."""
    if weights is None:
        weights = weights_of(logits, best, params.temperature)
    total = float(weights.double().sum())
    goal = params.top_p * total
    # Those lighter than this have less than 1 - top_p of the mass together: the last token of the
    # nucleus is among the others, and probably between two that a sample says.
    surely = (total - goal) / len(weights)
    for light, heavy in (_between(weights, total - goal), (0, math.inf)):
        least, most = (
            best + params.temperature * math.log(weight) if weight else -math.inf
            for weight in (max(light, 0.99 * surely), heavy)
        )
        places = _at_least(logits, least)
        some = logits.index_select(0, places)
        lighter = _at_least(-some, -most)  # the others are so heavy that they need no order
        mass = weights.index_select(0, places).index_fill_(0, lighter, 0).double().sum()
        near = _descending(some.index_select(0, lighter))
        masses = weights_of(near, best, params.temperature).double().cumsum(0) + mass
        if mass < goal and len(near) and masses[-1] >= goal:
            break
    last = min(int(torch.searchsorted(masses, goal)), len(near) - 1)
    least, count = float(near[last]), len(some) - len(near) + last + 1
    return places.index_select(0, _above(some, least, count))


def _between(weights: Tensor, mass: float) -> tuple[float, float]:
    """Return below which weight somewhat less than such a mass lies, and below which somewhat
    more, probably; 0 and infinity where that cannot be told.

    The light ones are many, so that a sample of them says it, within its standard error.
    """
    if weights.device.type != "cpu" or len(weights) < 64 * _EVERY:
        return 0, math.inf
    some, mass = np.sort(weights[::_EVERY].numpy()).astype(np.float64), mass / _EVERY
    masses = some.cumsum()
    error = np.sqrt(np.square(some[: np.searchsorted(masses, mass)]).sum())
    light, heavy = np.searchsorted(masses, (mass - _ERRORS * error, mass + _ERRORS * error))
    return (
        float(some[light]) if light < len(some) else 0,
        float(some[heavy]) if heavy < len(some) else math.inf,
    )


def weights_of(logits: Tensor, best: float, temperature: float) -> Tensor:
    """Return the probabilities of logits (n,), up to a common factor: that of `best` is 1."""
    weights = logits - best
    if temperature != 1:
        # Taking the maximum away first keeps a tiny temperature from overflowing, this bound from
        # dividing by 0.
        weights.div_(max(temperature, 1e-30))
    return weights.exp_()


def log_mass(logits: Tensor) -> Tensor:
    """Return the logarithm of the sum of exp(logits) over the last dimension: (..., V) -> (...).

    A row has the same bits alone and among others, on any number of threads: sums are of blocks
    first, none of them so long that torch would share it out among threads, as it does with a
    single row of a large vocabulary.
    """
    best = logits.amax(-1, keepdim=True)
    return log_of(block_sums((logits - best).exp_()), best.squeeze(-1))


def block_sums(weights: Tensor) -> Tensor:
    """Return the sums of 512 weights (..., V) each, at the end of those that are left over."""
    whole = weights.shape[-1] // _BLOCK
    blocks = weights[..., : whole * _BLOCK].unflatten(-1, (whole, _BLOCK)).sum(-1)
    rest = weights[..., whole * _BLOCK :].sum(-1, keepdim=True)
    return torch.cat([blocks, rest], -1)


def log_of(blocks: Tensor, best: Tensor | float) -> Tensor:
    """Return `log_mass` from the `block_sums` of the weights at temperature 1."""
    return blocks.sum(-1).log_().add_(best)


def pick(weights: Tensor, u: float, blocks: Tensor | None = None) -> int:
    """Return the first place at which the weights (n,) so far exceed the share u < 1 of them all.

    Sums are in float64, of blocks first: of a large vocabulary only one block is looked at closely.
    blocks: `block_sums` of the weights, where they are known.
    """
    mass = (block_sums(weights) if blocks is None else blocks).double().cumsum(0)
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
    some = values
    if 4 * _BLOCK * n < len(values):
        # The n-th largest of the blocks' maxima is no larger than the n-th largest of all.
        whole = len(values) - len(values) % _BLOCK
        least = values[:whole].view(-1, _BLOCK).amax(1).topk(n).values[-1]
        some = values[_at_least(values, float(least))]
    return _above(values, float(some.topk(n).values[-1]), n)


def _above(values: Tensor, least: float, n: int) -> Tensor:
    """Return the places of the n largest of values (V,), in order, where `least` is the n-th."""
    places = _at_least(values, least)
    if surplus := len(places) - n:
        equal = (values[places] == least).nonzero().squeeze(1)
        wanted = torch.ones_like(places, dtype=torch.bool)
        wanted[equal[-surplus:]] = False
        places = places[wanted]
    return places


def _at_least(values: Tensor, least: float) -> Tensor:
    """Return the places (int64) of values (n,) float32 that are not less, in order."""
    if values.device.type != "cpu":
        return (values >= least).nonzero().squeeze(1)
    return torch.from_numpy(np.flatnonzero(values.numpy() >= np.float32(least)))


def _descending(values: Tensor) -> Tensor:
    """Return values (n,) float32, the largest first."""
    if values.device.type != "cpu":
        return values.sort(descending=True).values
    return torch.from_numpy(np.sort(values.numpy())[::-1].copy())
