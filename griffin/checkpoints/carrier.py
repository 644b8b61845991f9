"""From files to a device: through a little pinned memory, never through a second copy of all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BLOCK = 64 << 20  # bytes of a buffer: long enough for the full speed of a bus


class Carrier:
    """Bring tensors of mapped files to a device, in the order in which they are asked for.

    A GPU copies from pinned memory by itself. Two buffers take turns: while one is on its way, the
    next bytes are read into the other.
    """

    def __init__(self, place: torch.device, block: int = BLOCK) -> None:
        self._place, self._block = place, block
        self._lanes: list[_Lane] = []
        self._turn = 0

    def bring(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a tensor of the host in a type on the device; on the CPU in memory of its own."""
        if self._place.type in ("cpu", "meta"):
            return tensor.to(self._place, dtype)
        target = torch.empty(tensor.shape, dtype=dtype, device=self._place)
        size = max(1, self._block // dtype.itemsize)
        pieces = tensor.reshape(-1).split(size), target.view(-1).split(size)
        for source, to in zip(*pieces, strict=True):
            self._lane().carry(source, to)
        return target

    def _lane(self) -> _Lane:
        """Return the buffer whose turn it is."""
        if len(self._lanes) < 2:
            self._lanes.append(_Lane(self._place, self._block))
        self._turn = (self._turn + 1) % len(self._lanes)
        return self._lanes[self._turn]


class _Lane:
    """A buffer, and the copy out of it that may still be going on."""

    def __init__(self, place: torch.device, block: int) -> None:
        pinned = place.type == "cuda"
        self._buffer = torch.empty(block, dtype=torch.uint8, pin_memory=pinned)
        self._place, self._module = place, torch.get_device_module(place)
        self._left: Any = self._module.Event()

    def carry(self, source: Tensor, target: Tensor) -> None:
        """Begin to copy values of the host to a device, in the target's type."""
        self._left.synchronize()  # at once if nothing was ever recorded
        held = self._buffer[: target.numel() * target.itemsize].view(target.dtype)
        held.copy_(source)
        target.copy_(held, non_blocking=True)
        # On the stream of the target: the current device may be another.
        self._left.record(self._module.current_stream(self._place))
