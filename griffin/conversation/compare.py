"""How far two states of one model lie apart, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from griffin.engine.pieces import cut_span, window
from griffin.model import GriffinConfig, State
from griffin.model.state import RecurrentState


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One part of one layer in two states.

    part:     "lru", "conv", "k" or "v".
    distance: of the two, relative to the longer one: 0 where they are equal, at most 2.
    cosine:   of the angle between them; 1 where both are nothing.
    equal:    to the bit.
    """

    layer: int
    part: str
    distance: float
    cosine: float
    equal: bool


@torch.no_grad()
def compare(config: GriffinConfig, a: State, b: State) -> list[Difference]:
    """Compare two states of one row each.

    Keys and values are compared from the last position back, as many as both hold. Keys are rotated
    by their positions, so those of states that have read different counts differ in any case.
    """
    for state in (a, b):
        if state.batch != 1 or len(state.layers) != config.num_layers:
            raise ValueError(
                f"states of one row and {config.num_layers} layers are compared, not one of"
                f" {state.batch} rows and {len(state.layers)} layers"
            )
    ends = int(a.pos[0]), int(b.pos[0])
    common = min(len(window(config, end)) for end in ends)
    spans = [cut_span(state, end - common, end) for state, end in zip((a, b), ends, strict=True)]
    found: list[Difference] = []
    attention = 0
    for layer, (one, other) in enumerate(zip(a.layers, b.layers, strict=True)):
        if isinstance(one, RecurrentState) and isinstance(other, RecurrentState):
            found.append(_difference(layer, "lru", one.lru, other.lru))
            found.append(_difference(layer, "conv", one.conv, other.conv))
        else:
            found.append(_difference(layer, "k", spans[0].k[attention], spans[1].k[attention]))
            found.append(_difference(layer, "v", spans[0].v[attention], spans[1].v[attention]))
            attention += 1
    return found


def _difference(layer: int, part: str, a: Tensor, b: Tensor) -> Difference:
    x, y = a.flatten().to(torch.float64), b.flatten().to(torch.float64)
    lengths = float(x.norm()), float(y.norm())
    longer, product = max(lengths), lengths[0] * lengths[1]
    return Difference(
        layer=layer,
        part=part,
        distance=float((x - y).norm()) / longer if longer else 0.0,
        cosine=float(x @ y) / product if product else float(not longer),
        equal=torch.equal(a, b),
    )
