"""Memory for packed weights: in pages of 2 MiB where the system gives them.

A product reads every weight once, and with pages of 4 KiB it spends a good part of its time looking them up.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

_PAGE = 2 << 20
_LEAST = 2 * _PAGE  # smaller tensors are left to torch


def room(shape: Sequence[int]) -> Tensor:
    """Return a new uint8 tensor on the CPU, its contents arbitrary."""
    size = math.prod(shape)
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None or size < _LEAST:
        return torch.empty(*shape, dtype=torch.uint8)
    # One page more than needed, so that it can begin with a whole one.
    memory = mmap.mmap(-1, size + _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(advice)
    whole = torch.frombuffer(memory, dtype=torch.uint8)  # keeps `memory` alive
    first = -whole.data_ptr() % _PAGE
    return whole[first : first + size].view(*shape)


def settle(data: Tensor) -> Tensor:
    """Return a copy of packed weights in memory of its own; what does not lie on the CPU is left as it is."""
    return room(data.shape).copy_(data) if data.device.type == "cpu" else data
