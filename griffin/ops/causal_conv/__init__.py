"""The depthwise causal convolution over the last few tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.dispatch import implementation
from griffin.ops.positions import take_positions


def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor, segment_pos: Tensor, cache: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Convolve each channel with its own W taps over the current token and the W-1 before it.

    x:           (B, T, E).
    weight:      (E, 1, W); tap k multiplies the token W-1-k places back.
    bias:        (E,).
    segment_pos: (B, T) int64; no tap reaches past a 0, where a document starts. Negative: left
                 padding.
    cache:       (B, W-1, E), the inputs before this call, oldest first; zeros if omitted.
    Returns y (B, T, E) in x.dtype and the next cache in the cache's dtype (x.dtype if omitted).
    Inputs of an earlier document leave the cache, so it is what the last document alone would have
    left. Sums are in float32 or wider. Raises ValueError for shapes that do not match and positions
    that cannot be. Griffin (arXiv:2402.19427), section 2.3.
    """
    segment_pos, cache = take_convolution(x, weight, bias, segment_pos, cache)
    run = implementation("causal_conv", x, weight, bias, segment_pos, cache)
    return run(x, weight, bias, segment_pos, cache)


def take_convolution(
    x: Tensor, weight: Tensor, bias: Tensor, segment_pos: Tensor, cache: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return positions as int64 and a cache, zeros if omitted; raise ValueError for what does not
    fit."""
    if x.dim() != 3:
        raise ValueError(f"x must be (B, T, E), not {tuple(x.shape)}")
    width = weight.shape[-1] if weight.dim() else 0
    if width < 1 or weight.shape != (x.shape[2], 1, width) or bias.shape != (x.shape[2],):
        raise ValueError(
            f"weight, bias must be (E, 1, W), (E,), E={x.shape[2]}; not {tuple(weight.shape)},"
            f" {tuple(bias.shape)}"
        )
    segment_pos = take_positions(segment_pos, x)
    if cache is None:
        cache = torch.zeros(x.shape[0], width - 1, x.shape[2], dtype=x.dtype, device=x.device)
    elif cache.shape != (x.shape[0], width - 1, x.shape[2]):
        raise ValueError(
            f"cache must be (B, W-1, E) = {(x.shape[0], width - 1, x.shape[2])}, not"
            f" {tuple(cache.shape)}"
        )
    return segment_pos, cache
