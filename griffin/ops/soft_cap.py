"""The soft cap of the logits."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops import native
from griffin.ops.dispatch import natively


def soft_cap(logits: Tensor, cap: float) -> Tensor:
    """Return cap * tanh(logits / cap). The memory of `logits` may be taken for the result."""
    if logits.dtype == torch.float32 and natively(logits):
        logits = logits.contiguous()
        native.module().soft_cap(logits.data_ptr(), logits.numel(), cap, torch.get_num_threads())
        return logits
    return torch.tanh(logits / cap) * cap
