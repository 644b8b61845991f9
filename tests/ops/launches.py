"""What the recurrence launches on a GPU at the widths of 2B, of tensors without values."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin import ops
from griffin.ops.launching import Launch, record

WIDTH, TOKENS = 2560, 4096
TYPES = (torch.bfloat16, torch.float32)


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor without values that has a gradient."""
    return torch.empty(shape, dtype=dtype, device="meta").requires_grad_()


def backward(*results: Tensor) -> None:
    """Run the gradient of all results."""
    torch.autograd.backward(results, [torch.empty_like(t) for t in results])


def linear_scan() -> list[Launch]:
    with record() as launches, ops.use("triton"):
        for dtype in TYPES:
            x, a = (empty(1, TOKENS, WIDTH, dtype=dtype) for _ in "xa")
            backward(*ops.linear_scan(x, a, empty(1, WIDTH)))
    return launches
