"""The soft cap of the logits."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops import kernels
from griffin.ops.dispatch import natively


def soft_cap(logits: Tensor, cap: float) -> Tensor:
    """Return cap * tanh(logits / cap). The memory of `logits` may be taken for the result."""
    if logits.dtype == torch.float32 and natively(logits):
        (logits,) = kernels.laid(logits)
        kernels.call("soft_cap", logits.dtype, (logits.numel(),), (logits,), cap)
        return logits
    return torch.tanh(logits / cap) * cap
