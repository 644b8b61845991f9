"""Memory for packed weights: in pages of 2 MiB where the system gives them.

A product reads every weight once, and with pages of 4 KiB it spends a good part of its time looking them up.
A matrix seldom ends where a large page does, so they lie one behind the other in blocks of many pages.
"""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

_PAGE = 2 << 20
_BLOCK = 32 * _PAGE  # what is asked of the system at once
_LEAST = 64 << 10  # smaller tensors are left to torch
_LINE = 64  # a matrix begins where a line of the cache does

_lock = threading.Lock()
_left = torch.empty(0, dtype=torch.uint8)  # of the last block


def room(shape: Sequence[int]) -> Tensor:
    """Return a new uint8 tensor on the CPU, its contents arbitrary.

    It shares a block with others, which goes back to the system with the last of them.
    """
    size = math.prod(shape)
    if not hasattr(mmap, "MADV_HUGEPAGE") or size < _LEAST:
        return torch.empty(*shape, dtype=torch.uint8)
    global _left
    whole = size + -size % _LINE
    with _lock:
        if whole > len(_left):
            if whole >= _BLOCK // 4:
                return _pages(size)[:size].view(*shape)
            _left = _pages(_BLOCK)
        taken, _left = _left[:size], _left[whole:]
    return taken.view(*shape)


def _pages(size: int) -> Tensor:
    """Return whole large pages that hold `size` bytes."""
    size += -size % _PAGE
    # One page more than needed, so that it can begin with a whole one.
    memory = mmap.mmap(-1, size + _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)  # keeps `memory` alive
    first = -whole.data_ptr() % _PAGE
    return whole[first : first + size]


def settle(data: Tensor) -> Tensor:
    """Return a copy of weights in memory of its own; what does not lie on the CPU is left as it is."""
    if data.device.type != "cpu":
        return data
    return room((data.nbytes,)).view(data.dtype).view(data.shape).copy_(data)


def zeros_together(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return zeros on the CPU, shaped and typed as (meta) tensors; many bytes lie in one piece of memory.

    As with torch.zeros a page of it is there only when something was written to it.
    """
    sizes = [t.nbytes + -t.nbytes % _LINE for t in tensors]
    if not hasattr(mmap, "MADV_HUGEPAGE") or sum(sizes) < 2 * _PAGE:
        return [torch.zeros(t.shape, dtype=t.dtype) for t in tensors]
    parts = _pages(sum(sizes)).split([*sizes, -sum(sizes) % _PAGE])  # new pages are zeros
    return [part[: t.nbytes].view(t.dtype).view(t.shape) for part, t in zip(parts[:-1], tensors, strict=True)]
