"""Products of few rows, as decoding on a GPU has them, with what stands around them in one launch.

laid: weights as they are read. reference: the equation. triton: one kernel for all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from griffin.ops.dispatch import implementation
from griffin.ops.few_rows.laid import Laid, lay, unlay
from griffin.ops.live import check_live
from griffin.ops.look_up_rows import look_up_rows

__all__ = ["Laid", "few_rows", "lay", "many_rows", "unlay"]


def few_rows(
    x: Tensor,
    weights: Laid,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    gated: bool = False,
    cap: float = 0.0,
    residual: Tensor | None = None,
    live: Tensor | None = None,
    out: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Return residual + cap(gate(norm(x) W^T + bias)), each part where it is asked for.

    x:        (R, I) float32 or bfloat16, any number of rows: 1 to 64 are what it is made for, more
              are taken 64 at a time.
    weights:  from `lay`, (O, I) with their bias.
    norm:     (I,), the weight of an RMS norm of x with `eps`, as `rms_norm` has it.
    gated:    the outputs are those of two matrices one below the other, O / 2 of a gate and O / 2
              of what it gates: gelu(gate) * other, gelu by tanh; (R, O / 2) is left.
    cap:      c in c tanh(y / c); 0: none.
    residual: (R, O), or (R, O / 2) where gated, added last; it may be `out` itself.
    live:     (1,) int32 on x's device: rows from there on are neither computed nor written, so that
              one captured graph serves any number of rows. None: all.
    out:      where to write the result; a new tensor if omitted, in which the rows that are not
              live hold anything.
    out_dtype: of a new result, x.dtype if omitted.
    Returns (R, O), or (R, O / 2). Activations are taken as they are: unlike on a CPU they are not
    rounded for int8 and int4 weights. Sums are float32 and in one order that the number of rows
    does not change, so a row has the same bits in any company; what goes into a product is of x's
    type. Raises ValueError for shapes that do not match. Griffin (arXiv:2402.19427), section 2.
    """
    rows = x.shape[0] if x.dim() == 2 else 0
    outputs = weights.out_features // 2 if gated else weights.out_features
    if x.dim() != 2 or not rows or x.shape[1] != weights.in_features:
        raise ValueError(f"x {tuple(x.shape)} must be (R, {weights.in_features}) with a row")
    if gated and weights.out_features % 2:
        raise ValueError(f"{weights.out_features} outputs are not those of a gate and another")
    if norm is not None and norm.shape != x.shape[1:]:
        raise ValueError(f"norm must be {tuple(x.shape[1:])}, not {tuple(norm.shape)}")
    for name, given in (("residual", residual), ("out", out)):
        if given is not None and given.shape != (rows, outputs):
            raise ValueError(f"{name} must be {(rows, outputs)}, not {tuple(given.shape)}")
    check_live(live)
    run = implementation(
        "few_rows", x, weights.data, weights.scale, weights.bias, norm, residual, live, out
    )
    if out is None:
        out = x.new_empty(rows, outputs, dtype=out_dtype or x.dtype)
    run(x, weights, norm, eps, gated, cap, residual, live, out)
    return out


def many_rows(x: Tensor, weights: Laid, out_dtype: torch.dtype | None = None) -> Tensor:
    """Return x W^T + bias by torch's product, for a prompt's many rows.

    x: (..., I). weights: from `lay`; packed ones are unpacked first, in x's type: in one launch,
    into memory that is free again afterwards and that torch gives to the next matrix.
    Returns (..., O) in `out_dtype`, x.dtype if omitted. Torch's order of sums depends on the number
    of rows.
    """
    matrix = weights.data
    if weights.format is not None:
        matrix = look_up_rows(None, weights, 1.0, x.dtype)
    bias = None if weights.bias is None else weights.bias.to(x.dtype)
    return functional.linear(x, matrix.to(x.dtype), bias).to(out_dtype or x.dtype)
