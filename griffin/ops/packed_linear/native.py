"""The product in C++: one pass over the weights, for any number of rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from griffin.ops import kernels, native
from griffin.ops.packed_linear.gradient import gradients, straight_through
from griffin.ops.packed_linear.matrix import laid_out, packed_matrix
from griffin.ops.packed_linear.packed import Packed


def packed_linear(x: Tensor, packed: Packed, bias: Tensor | None, out_dtype: torch.dtype) -> Tensor:
    # A custom op costs more than a small product.
    if not torch.compiler.is_compiling():
        return straight_through(_product, x, packed, bias, out_dtype)
    data, scale, format, out, inputs, low = packed
    return torch.ops.griffin.packed_linear(
        x, data, scale, bias, format, out, inputs, out_dtype, low
    )


def _product(x: Tensor, packed: Packed, bias: Tensor | None, out_dtype: torch.dtype) -> Tensor:
    if x.dtype not in _TYPES or out_dtype not in _TYPES:
        raise ValueError(
            f"the native product takes and returns float32 or bfloat16, not {x.dtype} and"
            f" {out_dtype}"
        )
    if bias is not None:
        (bias,) = kernels.laid(bias if bias.dtype in _TYPES else bias.float())
    packed = laid_out(packed)
    matrix, out_features, in_features = packed_matrix(packed, bias), *packed[3:5]
    y = torch.empty(*x.shape[:-1], out_features, dtype=out_dtype)
    if y.numel():
        sizes = x.numel() // in_features, in_features, out_features
        kernels.call("packed_linear", x.dtype, sizes, (x, y), matrix, native.TYPES[out_dtype])
    return y


_TYPES = (torch.float32, torch.bfloat16)


def _run(
    x: Tensor,
    data: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    format: str,
    out_features: int,
    in_features: int,
    out_dtype: torch.dtype,
    low: Tensor | None = None,
) -> Tensor:
    packed = Packed(data, scale, format, out_features, in_features, low)
    return _product(x, packed, bias, out_dtype)


_op = torch.library.custom_op("griffin::packed_linear", _run, mutates_args=())


@_op.register_fake
def _(
    x: Tensor,
    data: Tensor,
    scale: Any,
    bias: Any,
    format: str,
    out: int,
    _: int,
    dtype: Any,
    low: Any = None,
) -> Tensor:
    return x.new_empty(*x.shape[:-1], out, dtype=dtype)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, data, scale, bias, format, out_features, in_features, _, low = inputs
    ctx.save_for_backward(data, scale, low)
    ctx.like = (x.dtype, None if bias is None else bias.dtype, format, out_features, in_features)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    data, scale, low = ctx.saved_tensors
    x_dtype, bias_dtype, format, out_features, in_features = ctx.like
    needs = ctx.needs_input_grad
    kinds = x_dtype if needs[0] else None, bias_dtype if needs[3] else None
    packed = Packed(data, scale, format, out_features, in_features, low)
    dx, dbias = gradients(dy, packed, *kinds)
    return dx, None, None, dbias, None, None, None, None, None


_op.register_autograd(_backward, setup_context=_keep)
