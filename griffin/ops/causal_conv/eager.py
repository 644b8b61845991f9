"""The convolution as W shifted products of the whole sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor, segment_pos: Tensor, cache: Tensor
) -> tuple[Tensor, Tensor]:
    steps, reach = x.shape[1], cache.shape[1]
    # The cache belongs right before the first real token, so after the pads of a padded row. A
    # pad's own input is never used: the cache is written over the W-1 nearest ones, others are
    # out of reach.
    inputs = torch.cat([cache.to(x.dtype), x], dim=1)
    if reach:
        home = (segment_pos < 0).sum(1, keepdim=True) + torch.arange(reach, device=x.device)
        inputs = inputs.scatter(1, home[:, :, None].expand(-1, -1, x.shape[2]), cache.to(x.dtype))

    # since[b, t]: how many tokens back this document goes, as far as this call can tell.
    here = torch.arange(steps, device=x.device)
    since = here - torch.where(segment_pos == 0, here, -reach - 1).cummax(1).values

    y = _Taps.apply(inputs, weight[:, 0], bias, since.masked_fill(segment_pos < 0, -1))
    behind = torch.arange(reach - 1, -1, -1, device=x.device)  # places back from the last token
    left = inputs[:, steps:] * (behind <= since[:, -1:])[:, :, None]
    return y, left.to(cache.dtype)  # pyright: ignore[reportReturnType]


class _Taps(torch.autograd.Function):
    """y[t] = bias + the sum over `back` of taps[W-1-back] * inputs[W-1+t-back], while back <=
    since[t].

    since is -1 at a pad, where y is 0.

    Written out because autograd would fill a whole sequence with zeros for each shifted slice.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, taps: Tensor, bias: Tensor, since: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, taps, bias, since)
        wide = torch.promote_types(inputs.dtype, torch.float32)
        steps, reach = since.shape[1], taps.shape[1] - 1
        y = bias.to(wide).expand(*since.shape, -1).clone()
        for back in range(reach + 1):
            seen = inputs[:, reach - back : reach - back + steps] * _mask(since, back)
            y.addcmul_(seen.to(wide), taps[:, reach - back].to(wide))
        return y.mul_(_mask(since, 0)).to(inputs.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs, taps, bias, since = ctx.saved_tensors
        wide = torch.promote_types(inputs.dtype, torch.float32)
        steps, reach = since.shape[1], taps.shape[1] - 1
        dy = grads[0].to(wide)
        dinputs = torch.zeros(inputs.shape, dtype=wide, device=inputs.device)
        dtaps = torch.empty(taps.shape, dtype=wide, device=inputs.device)
        for back in range(reach + 1):
            places = slice(reach - back, reach - back + steps)
            passed = dy * _mask(since, back)
            dinputs[:, places].addcmul_(passed, taps[:, reach - back].to(wide))
            dtaps[:, reach - back] = passed.mul_(inputs[:, places]).sum((0, 1))
        dbias = (dy * _mask(since, 0)).sum((0, 1))
        return dinputs.to(inputs.dtype), dtaps.to(taps.dtype), dbias.to(bias.dtype), None


def _mask(since: Tensor, back: int) -> Tensor:
    return (since >= back)[:, :, None]
