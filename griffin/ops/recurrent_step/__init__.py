"""One token of many rows through a recurrent block, between its linear layers."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.dispatch import implementation
from griffin.ops.rg_lru import Gate, check_gates


def recurrent_step(
    x: Tensor,
    gate: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    position: Tensor,
    conv: Tensor,
    lru: Tensor,
    live: Tensor | None = None,
    kept: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Return gelu(gate) * rg_lru(causal_conv(x)) of a token a row; the state moves on in place.

    x, gate:              (B, E), what linear_x and linear_y give.
    conv_weight and bias: (E, 1, W), (E,), as `causal_conv` takes them.
    gates, recurrent_param: as `rg_lru` takes them.
    position:             (B,) int64; at 0 a document starts, and what came before is forgotten.
    conv, lru:            (B or more, W-1, E) in x.dtype, (B or more, E) float32, contiguous; row b
                          belongs to row b of x.
    live:                 (1,) int32 on the device of x, how many rows run; None: all. Rows from
                          there on write nothing, to the state or to the result.
    kept:                 a conv and an lru of just B rows, contiguous: what they held before.
    Returns (B, E) in x.dtype, rounded once; h is first rounded to x.dtype. On a GPU it is one
    launch, and calls that share a device have to follow each other on one stream. Raises
    ValueError for shapes and types that do not fit. Griffin (arXiv:2402.19427), section 2.3.
    """
    if x.dim() != 2 or gate.shape != x.shape or position.shape != x.shape[:1]:
        raise ValueError(
            f"x and gate must be equal (B, E) and position (B,), not {tuple(x.shape)},"
            f" {tuple(gate.shape)}, {tuple(position.shape)}"
        )
    check_gates(x[:, None], input_gate, recurrence_gate, recurrent_param, None)
    rows, width = x.shape
    taps = conv_weight.shape[-1] if conv_weight.dim() == 3 else 0
    if conv_weight.shape != (width, 1, taps) or conv_bias.shape != (width,) or taps < 1:
        raise ValueError(
            f"conv_weight, conv_bias must be (E, 1, W), (E,), E={width}; not"
            f" {tuple(conv_weight.shape)}, {tuple(conv_bias.shape)}"
        )
    fits = conv.shape[1:] == (taps - 1, width) and lru.shape[1:] == (width,)
    if not fits or min(conv.shape[0], lru.shape[0]) < rows:
        raise ValueError(
            f"conv, lru must be (B, W-1, E), (B, E) of at least {rows} rows, W={taps}, E={width};"
            f" not {tuple(conv.shape)}, {tuple(lru.shape)}"
        )
    wide = torch.promote_types(x.dtype, torch.float32)
    if conv.dtype != x.dtype or lru.dtype != wide or position.dtype != torch.int64:
        raise ValueError(
            f"conv, lru, position must be {x.dtype}, {wide}, int64, not {conv.dtype}, {lru.dtype},"
            f" {position.dtype}"
        )
    if not conv.is_contiguous() or not lru.is_contiguous():
        raise ValueError("conv and lru change in place, so they must be contiguous")
    for part, state in zip(kept or (), (conv, lru), strict=False):
        shape = (rows, *state.shape[1:])
        if part.shape != shape or part.dtype != state.dtype or not part.is_contiguous():
            raise ValueError(
                f"kept must be contiguous {shape} {state.dtype}, not {tuple(part.shape)}"
                f" {part.dtype}"
            )
    weights = conv_weight, conv_bias, *input_gate, *recurrence_gate, recurrent_param
    given = *weights, position, conv, lru, live, *(kept or ())
    run = implementation("recurrent_step", x, gate, *given)
    return run(
        x,
        gate,
        conv_weight,
        conv_bias,
        input_gate,
        recurrence_gate,
        recurrent_param,
        position,
        conv,
        lru,
        live,
        kept,
    )
