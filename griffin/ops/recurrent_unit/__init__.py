"""Convolution, gates, decay and scan of a recurrent block as one unit, for training above all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from griffin.ops.causal_conv import take_convolution
from griffin.ops.dispatch import implementation
from griffin.ops.rg_lru import Gate, check_gates


def recurrent_unit(
    x: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    segment_pos: Tensor,
    cache: Tensor | None = None,
    h0: Tensor | None = None,
    *,
    as_without: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run `rg_lru` over `causal_conv` of x.

    x, conv_weight, conv_bias, cache:      as `causal_conv` takes them.
    gates, recurrent_param, segment_pos, h0: as `rg_lru` takes them.
    as_without: also with gradients the results have the bits that they have without; it costs the
                native one another pass.
    Returns h (B, T, E) in x.dtype, the next cache (B, W-1, E) in the cache's dtype (x.dtype if
    omitted) and the last h (B, E) in float32 or wider. Every input but segment_pos, and every
    result, has a gradient.

    Without gradients it has the bits of the two ops. With them, the native one keeps its inputs and
    one h every few tokens, makes the rest again, and multiplies gates of bfloat16 x by weights
    rounded to bfloat16, where the machine multiplies pairs of them. Raises ValueError for what does
    not fit, as the two ops do. Griffin (arXiv:2402.19427), section 2.3.
    """
    return _run(
        x,
        conv_weight,
        conv_bias,
        input_gate,
        recurrence_gate,
        recurrent_param,
        segment_pos,
        cache,
        h0,
        as_without=as_without,
    )[:3]


def recurrent_carry(
    x: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    segment_pos: Tensor,
    cache: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return what a piece of a row does to the h before it: the last h is decay * h0 + end.

    Arguments as for `recurrent_unit`. Returns decay, the product of the piece's a (zero where a
    document starts in it), and end, its last h from nothing; both (B, E) in float32 or wider, with
    gradients. So pieces of a row can be read at once by several ranks, which then need no more of
    each other than these two. It costs what `recurrent_unit` does.
    """
    _, _, end, decay = _run(
        x,
        conv_weight,
        conv_bias,
        input_gate,
        recurrence_gate,
        recurrent_param,
        segment_pos,
        cache,
        None,
        product=True,
    )
    return decay, end


def _run(
    x: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    segment_pos: Tensor,
    cache: Tensor | None,
    h0: Tensor | None,
    *,
    product: bool = False,
    as_without: bool = False,
) -> tuple[Any, ...]:
    """Return h, the next cache, the last h and, if it is asked for, the product of a."""
    segment_pos, cache = take_convolution(x, conv_weight, conv_bias, segment_pos, cache)
    check_gates(x, input_gate, recurrence_gate, recurrent_param, h0)
    if h0 is None:
        wide = torch.promote_types(x.dtype, torch.float32)
        h0 = torch.zeros(x.shape[0], x.shape[2], dtype=wide, device=x.device)
    weights = (conv_weight, conv_bias, *input_gate, *recurrence_gate, recurrent_param)
    run = implementation("recurrent_unit", x, *weights, segment_pos, cache, h0)
    return run(
        x,
        conv_weight,
        conv_bias,
        input_gate,
        recurrence_gate,
        recurrent_param,
        segment_pos,
        cache,
        h0,
        product,
        as_without,
    )
