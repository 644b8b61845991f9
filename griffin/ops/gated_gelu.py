"""The gate of the MLP and of the recurrent block."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from griffin.ops import kernels
from griffin.ops.dispatch import natively


def gated_gelu(gate: Tensor, x: Tensor) -> Tensor:
    """Return gelu(gate) * x, gelu approximated by tanh as the released models were trained.

    gate, x: of one shape and type. The native kernel rounds once, torch after the gelu too.
    Griffin (arXiv:2402.19427), sections 2.2 and 2.3.
    """
    if gate.shape != x.shape:
        raise ValueError(f"gate {tuple(gate.shape)} and x {tuple(x.shape)} do not match")
    if natively(gate, x):
        y = kernels.fresh(x)
        kernels.call("gated", x.dtype, (x.numel(),), (gate, x, y))
        return y
    return functional.gelu(gate, approximate="tanh") * x
