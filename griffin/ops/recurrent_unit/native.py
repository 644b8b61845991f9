"""The unit in C++, in one pass each way; without gradients one op after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from griffin.ops import kernels, native
from griffin.ops.recurrent_unit import eager
from griffin.ops.rg_lru import Gate

_GROUPS = 8  # of rows, at most, that have sums of their own: a fixed number, whatever the threads


def recurrent_unit(
    x: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    segment_pos: Tensor,
    cache: Tensor,
    h0: Tensor,
    product: bool,
    as_without: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    gates = input_gate, recurrence_gate
    weights = (conv_weight, conv_bias, *input_gate, *recurrence_gate, recurrent_param)
    trains = torch.is_grad_enabled() and any(t.requires_grad for t in (x, cache, h0, *weights))
    large = input_gate.weight.shape[1] > native.LARGEST_GATE
    large = large or conv_weight.shape[-1] > native.MOST_TAPS
    if not trains or large:
        return eager.recurrent_unit(
            x,
            conv_weight,
            conv_bias,
            *gates,
            recurrent_param,
            segment_pos,
            cache,
            h0,
            product,
            as_without,
        )
    wide = torch.promote_types(x.dtype, torch.float32)
    if as_without and not product and not torch.compiler.is_compiling():
        found: Any = _RecurrentUnit.apply(x, *weights, segment_pos, cache, h0)
        return *found, None
    operands = *(t.to(wide) for t in weights), segment_pos, cache.to(x.dtype), h0.to(wide)
    h, left, last, decay, _ = torch.ops.griffin.recurrent_unit(x, *operands)
    return h, left.to(cache.dtype), last, decay if product else None


def _sizes(x: Tensor, conv_weight: Tensor, input_weight: Tensor) -> tuple[int, ...]:
    return *x.shape, input_weight.shape[0], conv_weight.shape[-1]


def _run(
    x: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    input_weight: Tensor,
    input_bias: Tensor,
    recurrence_weight: Tensor,
    recurrence_bias: Tensor,
    param: Tensor,
    segment_pos: Tensor,
    cache: Tensor,
    h0: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return h, the next cache, the last h, the product of a, and every KEPT_STEPS-th h."""
    gates = input_weight, input_bias, recurrence_weight, recurrence_bias
    inputs = x, conv_weight, conv_bias, *gates, param, segment_pos, cache, h0
    h, left, last, decay = (kernels.fresh(t) for t in (x, cache, h0, h0))
    kept = h0.new_empty(_kept(x))
    results = h, left, last, decay, kept
    kernels.call("recurrence", x.dtype, _sizes(x, conv_weight, input_weight), (*inputs, *results))
    return results


def _kept(x: Tensor) -> tuple[int, int, int]:
    return x.shape[0], (x.shape[1] - 1) // native.KEPT_STEPS, x.shape[2]


def _run_backward(
    x: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    input_weight: Tensor,
    input_bias: Tensor,
    recurrence_weight: Tensor,
    recurrence_bias: Tensor,
    param: Tensor,
    segment_pos: Tensor,
    cache: Tensor,
    h0: Tensor,
    kept: Tensor,
    dh: Tensor | None,
    dleft: Tensor | None,
    dlast: Tensor | None,
    ddecay: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, cache and h0, and those of the weights as they lie: (G, sums)."""
    gates = input_weight, input_bias, recurrence_weight, recurrence_bias
    inputs = x, conv_weight, conv_bias, *gates, param, segment_pos, cache, h0, kept
    sizes = *_sizes(x, conv_weight, input_weight), min(x.shape[0], _GROUPS)
    dx, dcache, dh0 = (kernels.fresh(t) for t in (x, cache, h0))
    sums = h0.new_empty(sizes[-1], *_sums(conv_weight, input_weight))
    grads = dh, dleft, dlast, ddecay
    kernels.call("recurrence_gradient", x.dtype, sizes, (*inputs, *grads, dx, dcache, dh0, sums))
    total = sums.new_zeros(sums.shape[1:])
    for part in sums:  # in order: torch may sum in another with other threads
        total += part
    return dx, dcache, dh0, total


def _sums(conv_weight: Tensor, input_weight: Tensor) -> tuple[int, int]:
    blocks, size, _ = input_weight.shape
    return blocks, size * (2 * size + conv_weight.shape[-1] + 4)


_op = torch.library.custom_op("griffin::recurrent_unit", _run, mutates_args=())
_backward_op = torch.library.custom_op(
    "griffin::recurrent_unit_backward", _run_backward, mutates_args=()
)


@_op.register_fake
def _(x: Tensor, *others: Tensor) -> Any:
    cache, h0 = others[-2:]
    last, decay, kept = h0.new_empty(h0.shape), h0.new_empty(h0.shape), h0.new_empty(_kept(x))
    return x.new_empty(x.shape), cache.new_empty(cache.shape), last, decay, kept


@_backward_op.register_fake
def _(x: Tensor, conv_weight: Tensor, conv_bias: Tensor, input_weight: Tensor, *rest: Any) -> Any:
    cache, h0 = rest[5:7]
    sums = h0.new_empty(_sums(conv_weight, input_weight))
    return x.new_empty(x.shape), cache.new_empty(cache.shape), h0.new_empty(h0.shape), sums


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, output[3], output[4])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    *inputs, decay, kept = ctx.saved_tensors
    dh, dleft, dlast, ddecay, _ = grads
    ddecay = None if ddecay is None else ddecay * decay
    return _gradients(inputs, kept, (dh, dleft, dlast, ddecay))


def _gradients(
    inputs: Sequence[Tensor], kept: Tensor, grads: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of a unit's inputs from those of h, the cache, the last h and log of the
    product of a."""
    run = torch.ops.griffin.recurrent_unit_backward
    dx, dcache, dh0, sums = run(*inputs, kept, *grads)
    weight, _, gate, bias = inputs[1:5]
    size, taps = bias.shape[1], weight.shape[2]
    parts = sums.split([size * size] * 2 + [size] * 3 + [size * taps, size], dim=1)
    wi, wr, bi, br, rate, conv, start = parts
    dgates = wi.reshape(gate.shape), bi, wr.reshape(gate.shape), br
    dparam = rate.flatten() * torch.sigmoid(inputs[7])
    return dx, conv.reshape(weight.shape), start.flatten(), *dgates, dparam, None, dcache, dh0


_op.register_autograd(_backward, setup_context=_keep)


class _RecurrentUnit(torch.autograd.Function):
    """The unit one op after the other, as without gradients; in one pass when they are asked for.

    Of x, the weights of convolution, gates and decay, segment_pos, cache and h0.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        x, conv_weight, conv_bias, wi, bi, wr, br, param, segment_pos, cache, h0 = inputs
        gates = Gate(wi, bi), Gate(wr, br)
        given = x, conv_weight, conv_bias, *gates, param, segment_pos, cache, h0
        return eager.recurrent_unit(*given, False, True)[:3]

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides its names
        ctx: Any, *grads: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, *weights, segment_pos, cache, h0 = ctx.saved_tensors
        wide = torch.promote_types(x.dtype, torch.float32)
        state = cache.to(x.dtype), h0.to(wide)
        inputs = x, *(t.to(wide) for t in weights), segment_pos, *state
        *_, kept = torch.ops.griffin.recurrent_unit(*inputs)
        dh, dleft, dlast = grads
        dleft = None if dleft is None else dleft.to(x.dtype)
        found = _gradients(inputs, kept, (dh, dleft, dlast, None))
        like = x, *weights, segment_pos, cache, h0
        return tuple(
            None if gradient is None else gradient.to(given.dtype)
            for gradient, given in zip(found, like, strict=True)
        )
