"""The convolution in C++: one pass, cache included; gradients through the torch path."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops import kernels, native
from griffin.ops.causal_conv import eager


def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor, segment_pos: Tensor, cache: Tensor
) -> tuple[Tensor, Tensor]:
    inputs = (x, weight, bias, cache)
    trains = torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
    alike = all(t.dtype == x.dtype for t in inputs)
    if trains or not alike or weight.shape[-1] > native.MOST_TAPS:
        return eager.causal_conv(x, weight, bias, segment_pos, cache)
    run = torch.ops.griffin.causal_conv if native.through_torch(x) else _run
    return run(x, weight, bias, segment_pos, cache)


def _run(
    x: Tensor, weight: Tensor, bias: Tensor, segment_pos: Tensor, cache: Tensor
) -> tuple[Tensor, Tensor]:
    y, left = kernels.fresh(x), kernels.fresh(cache)
    tensors = x, weight, bias, segment_pos, cache, y, left
    kernels.call("convolution", x.dtype, (*x.shape, weight.shape[-1]), tensors)
    return y, left


_op = torch.library.custom_op("griffin::causal_conv", _run, mutates_args=())


@_op.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor, segment_pos: Tensor, cache: Tensor
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), cache.new_empty(cache.shape)
