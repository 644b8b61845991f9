"""The RG-LRU in C++: gates, decay and scan in one pass; in training, gates come from torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from griffin.ops import kernels, native
from griffin.ops.linear import block_linear
from griffin.ops.rg_lru import Gate


def rg_lru(
    x: Tensor,
    input_gate: Gate,
    recurrence_gate: Gate,
    recurrent_param: Tensor,
    segment_pos: Tensor,
    h0: Tensor | None,
) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(x.dtype, torch.float32)
    h0 = x.new_zeros(x.shape[0], x.shape[2], dtype=wide) if h0 is None else h0.to(wide)
    gates = (input_gate.weight, input_gate.bias, recurrence_gate.weight, recurrence_gate.bias)
    weights = (*gates, recurrent_param)
    trains = torch.is_grad_enabled() and any(t.requires_grad for t in (x, h0, *weights))
    alike = all(t.dtype == x.dtype for t in weights)
    if trains or not alike or input_gate.weight.shape[1] > native.LARGEST_GATE:
        gate_i, gate_r = block_linear(x, *input_gate), block_linear(x, *recurrence_gate)
        unit = torch.ops.griffin.rg_lru_of_gates
        h, last, _ = unit(x, gate_i, gate_r, recurrent_param.to(wide), segment_pos, h0)
        return h, last
    run = torch.ops.griffin.rg_lru if native.through_torch(x) else _run
    return run(x, *weights, segment_pos, h0)


def _run(
    x: Tensor,
    input_weight: Tensor,
    input_bias: Tensor,
    recurrence_weight: Tensor,
    recurrence_bias: Tensor,
    recurrent_param: Tensor,
    segment_pos: Tensor,
    h0: Tensor,
) -> tuple[Tensor, Tensor]:
    weights = (input_weight, input_bias, recurrence_weight, recurrence_bias, recurrent_param)
    h, last = kernels.fresh(x), kernels.fresh(h0)
    tensors = x, *weights, segment_pos, h0, h, last
    kernels.call("unit", x.dtype, (*x.shape, input_weight.shape[0]), tensors)
    return h, last


def _run_of_gates(
    x: Tensor, gate_i: Tensor, gate_r: Tensor, param: Tensor, segment_pos: Tensor, h0: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return h, the last h, and every h in the wide type."""
    h, last = kernels.fresh(x), kernels.fresh(h0)
    every = kernels.fresh(x, h0.dtype)
    tensors = x, gate_i, gate_r, param, segment_pos, h0, h, last, every
    kernels.call("unit_of_gates", x.dtype, x.shape, tensors)
    return h, last, every


def _run_backward(
    x: Tensor,
    dh: Tensor,
    gate_i: Tensor,
    gate_r: Tensor,
    every: Tensor,
    param: Tensor,
    segment_pos: Tensor,
    h0: Tensor,
    dlast: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, gate_i and gate_r (B, T, E), of softplus(param) (B, E) and of
    h0."""
    inputs = x, dh, gate_i, gate_r, every, param, segment_pos, h0, dlast
    dx, dgate_i, dgate_r = (kernels.fresh(every) for _ in range(3))
    drate, dh0 = (kernels.fresh(dlast) for _ in range(2))
    results = dx, dgate_i, dgate_r, drate, dh0
    kernels.call("unit_gradient", x.dtype, x.shape, (*inputs, *results))
    return dx, dgate_i, dgate_r, drate, dh0


_op = torch.library.custom_op("griffin::rg_lru", _run, mutates_args=())
_gates_op = torch.library.custom_op("griffin::rg_lru_of_gates", _run_of_gates, mutates_args=())
_backward_op = torch.library.custom_op("griffin::rg_lru_backward", _run_backward, mutates_args=())


@_op.register_fake
def _(
    x: Tensor, wi: Tensor, bi: Tensor, wr: Tensor, br: Tensor, p: Tensor, pos: Tensor, h0: Tensor
) -> Any:
    return x.new_empty(x.shape), h0.new_empty(h0.shape)


@_gates_op.register_fake
def _(
    x: Tensor, gate_i: Tensor, gate_r: Tensor, param: Tensor, segment_pos: Tensor, h0: Tensor
) -> Any:
    return x.new_empty(x.shape), h0.new_empty(h0.shape), h0.new_empty(x.shape)


@_backward_op.register_fake
def _(
    x: Tensor,
    dh: Tensor,
    gate_i: Tensor,
    gate_r: Tensor,
    every: Tensor,
    param: Tensor,
    segment_pos: Tensor,
    h0: Tensor,
    dlast: Tensor,
) -> Any:
    return *(every.new_empty(every.shape) for _ in range(3)), *(
        h0.new_empty(h0.shape) for _ in range(2)
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, output[2])


def _backward(ctx: Any, dh: Tensor, dlast: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    x, gate_i, gate_r, param, segment_pos, h0, every = ctx.saved_tensors
    run = torch.ops.griffin.rg_lru_backward
    dx, dgate_i, dgate_r, drate, dh0 = run(
        x, dh, gate_i, gate_r, every, param, segment_pos, h0, dlast
    )
    return dx.to(x.dtype), dgate_i, dgate_r, drate.sum(0) * torch.sigmoid(param), None, dh0


_gates_op.register_autograd(_backward, setup_context=_keep)
