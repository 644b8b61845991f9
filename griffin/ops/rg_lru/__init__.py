"""The real-gated linear recurrent unit: gates, decay and scan."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from griffin.ops.dispatch import implementation
from griffin.ops.positions import take_positions

DECAY_SCALE = 8.0  # the paper's c: log a = -c * recurrence gate * softplus(recurrent_param)
MAX_SQRT_GRADIENT = 1000.0


class Gate(NamedTuple):
    """A block-diagonal linear layer."""

    weight: Tensor  # (G, E/G, E/G), block by input by output
    bias: Tensor  # (G, E/G)


def rg_lru(
    x: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    segment_pos: Tensor,
    h0: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the RG-LRU: h[t] = a[t] h[t-1] + sqrt(1 - a[t]^2) (i[t] x[t]).

    x:               (B, T, E), the convolution's output.
    gates:           i = sigmoid(input gate of x), r = sigmoid(recurrence gate of x).
    recurrent_param: (E,); log a = -8 r softplus(recurrent_param).
    segment_pos:     (B, T) int64. At 0 a document starts: h is forgotten and x enters unscaled. At
                     negative positions (left padding) h stays as it is.
    h0:              (B, E) float32, zeros if omitted.
    Returns h (B, T, E) in x.dtype and the last h (B, E) in float32. Everything between is float32
    or wider; the gradient of the square root is clipped at 1000 (RecurrentGemma, section 2.3).
    Raises ValueError for shapes that do not match and positions that cannot be.
    Griffin (arXiv:2402.19427), section 2.4 and appendix A.
    """
    check_gates(x, input_gate, recurrence_gate, recurrent_param, h0)
    segment_pos = take_positions(segment_pos, x)
    run = implementation(
        "rg_lru", x, *input_gate, *recurrence_gate, recurrent_param, segment_pos, h0
    )
    return run(x, input_gate, recurrence_gate, recurrent_param, segment_pos, h0)


def rg_lru_at(
    x: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    segment_pos: Tensor,
    h0: Tensor | None,
    at: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the RG-LRU and return what `rg_lru` does, and h after some of the tokens.

    at: after how many, ascending, 1 up to T.
    Returns h, the last h, and those (B, len(at), E) in float32. An implementation that holds every
    h in float32 at some time has an `rg_lru_at` of its own; the others run from mark to mark, and
    have the bits that they have when calls end there. Without gradients.
    """
    check_gates(x, input_gate, recurrence_gate, recurrent_param, h0)
    segment_pos = take_positions(segment_pos, x)
    weights = (input_gate, recurrence_gate, recurrent_param)
    run = implementation(
        "rg_lru", x, *input_gate, *recurrence_gate, recurrent_param, segment_pos, h0
    )
    whole = getattr(sys.modules[run.__module__], "rg_lru_at", None)
    if whole is not None:
        return whole(x, *weights, segment_pos, h0, at)
    sizes = [b - a for a, b in zip((0, *at), (*at, x.shape[1]), strict=True) if b > a]
    pieces, held = [], []
    for piece, where in zip(x.split(sizes, 1), segment_pos.split(sizes, 1), strict=True):
        y, h0 = run(piece, *weights, where, h0)
        pieces.append(y)
        held.append(h0)
    return torch.cat(pieces, 1), held[-1], torch.stack(held[: len(at)], 1)


def check_gates(
    x: Tensor, input_gate: Gate, recurrence_gate: Gate, recurrent_param: Tensor, h0: Tensor | None
) -> None:
    """Raise ValueError for gates, a recurrent_param or an h0 that do not fit x."""
    gates = (*input_gate, *recurrence_gate)
    shape = input_gate.bias.shape
    blocks, size = shape if len(shape) == 2 else (0, 0)
    weight = torch.Size((blocks, size, size))
    if (
        x.dim() != 3
        or recurrent_param.shape != x.shape[-1:]
        or x.shape[-1] != blocks * size
        or recurrence_gate.bias.shape != shape
        or input_gate.weight.shape != weight
        or recurrence_gate.weight.shape != weight
    ):
        raise ValueError(
            f"x {tuple(x.shape)} does not fit gates {[tuple(t.shape) for t in gates]} "
            f"and recurrent_param {tuple(recurrent_param.shape)}"
        )
    if h0 is not None and h0.shape != (x.shape[0], x.shape[2]):
        raise ValueError(f"h0 must be (B, E) = {(x.shape[0], x.shape[2])}, not {tuple(h0.shape)}")
