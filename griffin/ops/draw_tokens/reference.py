"""The choice over sorted logits, all rows together: nothing is waited for, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.draw_tokens import FINE, NOT_FINITE, NOTHING_ALLOWED, Draw, DrawnTokens


def draw_tokens(logits: Tensor, draw: Draw, live: Tensor | None, out: DrawnTokens) -> None:
    best = logits.amax(1)
    finite = best.isfinite()
    shaped = _shaped(logits, draw)
    may = shaped.amax(1).isfinite()
    token = torch.where(draw.temperature == 0, shaped.argmax(1), _drawn(shaped, draw))
    fault = torch.where(may, FINE, NOTHING_ALLOWED).masked_fill(~finite, NOT_FINITE)
    token = torch.where(fault == FINE, token, 0)
    counted = (draw.places[0] >= 0) & (fault == FINE)
    if live is not None:
        counted = counted & (torch.arange(len(token), device=token.device) < live)
    if len(draw.counts):
        at = draw.places[0].clamp_min(0).long(), token
        draw.counts.index_put_(at, counted.to(torch.int32) * 2, accumulate=True)
    total = (logits - best[:, None]).exp().sum(1, dtype=torch.float64).log()
    chosen = logits.gather(1, token[:, None])[:, 0]
    logprob = ((chosen - best).double() - total).float()
    for target, found in zip(out, (token, logprob, fault), strict=True):
        target.copy_(found)


def _shaped(logits: Tensor, draw: Draw) -> Tensor:
    """Return the logits after penalties, bias and masks."""
    counted, biased, masked, ended = draw.places[:, :, None]
    if len(draw.counts):
        counts = draw.counts[counted[:, 0].clamp_min(0)]
        times = counts >> 1
        seen = (counts > 0) & (draw.repetition[:, None] != 1)
        penalty = draw.repetition[:, None]
        scaled = torch.where(logits > 0, logits / penalty, logits * penalty)
        changed = torch.where(seen, scaled, logits)
        changed = changed - draw.frequency[:, None] * times
        changed = changed - draw.presence[:, None] * (times > 0).float()
        logits = torch.where(counted >= 0, changed, logits)
    if len(draw.bias):
        logits = torch.where(biased >= 0, logits + draw.bias[biased[:, 0].clamp_min(0)], logits)
    if len(draw.masks):
        may = _marked(draw.masks, masked[:, 0], logits.shape[1])
        logits = torch.where(may | (masked < 0), logits, -torch.inf)
        ends = _marked(draw.masks, ended[:, 0], logits.shape[1])
        others = torch.where(ends & (ended >= 0), -torch.inf, logits)
        nothing = others.amax(1, keepdim=True) == -torch.inf
        logits = torch.where(nothing, logits, others)
    return logits


def _marked(masks: Tensor, places: Tensor, size: int) -> Tensor:
    words = masks[places.clamp_min(0)][:, :, None]
    bits = torch.arange(32, device=masks.device, dtype=torch.int32)
    return (words >> bits & 1).bool().flatten(1)[:, :size]


def _drawn(shaped: Tensor, draw: Draw) -> Tensor:
    """Return the first id at which the mass of what is left exceeds its row's share."""
    size = shaped.shape[1]
    ordered, ids = shaped.sort(dim=1, descending=True, stable=True)
    best, rank = ordered[:, :1], torch.arange(size, device=shaped.device)
    keep = (draw.top_k[:, None] == 0) | (rank < draw.top_k[:, None])
    keep = keep & (ordered >= best.double() + draw.min_p[:, None])
    temperature = draw.temperature[:, None].clamp_min(1e-30)
    weights = ((ordered - best) / temperature).exp()
    mass = torch.where(keep, weights, 0).cumsum(1, dtype=torch.float64)
    goal = draw.top_p[:, None] * mass[:, -1:]
    last = (mass < goal).sum(1, keepdim=True)
    keep = keep & ((rank <= last) | (draw.top_p[:, None] >= 1))
    weights = torch.zeros_like(weights).scatter(1, ids, torch.where(keep, weights, 0))
    mass = weights.cumsum(1, dtype=torch.float64)
    goal = mass[:, -1:] * draw.uniform[:, None]
    place = (mass <= goal).sum(1)
    # The goal was so near the whole mass that it was rounded up to it.
    return torch.where(place < size, place, (mass < mass[:, -1:]).sum(1))
