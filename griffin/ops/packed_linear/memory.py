"""Memory for packed weights: in pages of 2 MiB where the system gives them.

A product reads every weight once, and with pages of 4 KiB it spends a good part of its time looking
them up. A matrix seldom ends where a large page does, so they lie one behind the other in blocks of
many pages.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

_PAGE = 2 << 20
_BLOCK = 32 * _PAGE  # what is asked of the system at once
_LEAST = 64 << 10  # smaller tensors are left to torch
_LINE = 64  # a matrix begins where a line of the cache does


class _Pages:
    """Memory in whole large pages, given away from the front to the back."""

    def __init__(self, size: int) -> None:
        # One page more than needed, so that the first one can be whole.
        size += -size % _PAGE
        self._memory = mmap.mmap(-1, size + _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a system without large pages gives small ones
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        begin = torch.frombuffer(self._memory, dtype=torch.uint8, count=1).data_ptr()
        self._at = -begin % _PAGE
        self._end = self._at + size

    @property
    def left(self) -> int:
        return self._end - self._at

    def take(self, size: int) -> Tensor:
        """Return a tensor of its own over the next bytes: as long as it lives, the memory does."""
        tensor = torch.frombuffer(self._memory, dtype=torch.uint8, count=size, offset=self._at)
        self._at += _in_lines(size)
        return tensor


_lock = threading.Lock()
_block: _Pages | None = None  # the last one
# A child must not find it locked by a thread that it does not have.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


def allocate(shape: Sequence[int]) -> Tensor:
    """Return a new uint8 tensor on the CPU, its contents arbitrary.

    It shares a block with others, which goes back to the system with the last of them.
    """
    size = math.prod(shape)
    if not hasattr(mmap, "MADV_HUGEPAGE") or size < _LEAST:
        return torch.empty(*shape, dtype=torch.uint8, device="cpu")
    global _block
    with _lock:
        if _block is None or _in_lines(size) > _block.left:
            if size >= _BLOCK // 4:
                return _Pages(size).take(size).view(*shape)
            _block = _Pages(_BLOCK)
        return _block.take(size).view(*shape)


def unmap(data: Tensor) -> Tensor:
    """Return weights in memory of their own instead of a mapped file's; on a GPU, as they are."""
    if data.device.type != "cpu":
        return data
    return allocate((data.nbytes,)).view(data.dtype).view(data.shape).copy_(data)


def zeros_together(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return zeros on the CPU, shaped and typed as (meta) tensors; many lie in one piece of memory.

    As with torch.zeros a page takes memory only when something was written to it.
    """
    size = sum(_in_lines(t.nbytes) for t in tensors)
    if not hasattr(mmap, "MADV_HUGEPAGE") or size < 2 * _PAGE:
        return [torch.zeros(t.shape, dtype=t.dtype, device="cpu") for t in tensors]
    pages = _Pages(size)  # new ones are zeros
    return [
        pages.take(t.nbytes).view(t.dtype).view(t.shape)
        if t.nbytes
        else torch.zeros(t.shape, dtype=t.dtype, device="cpu")
        for t in tensors
    ]


def _in_lines(size: int) -> int:
    return size + -size % _LINE
