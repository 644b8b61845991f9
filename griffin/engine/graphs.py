"""A list of launches that is recorded once and replayed: a CUDA graph, or plainly the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

Replay = Callable[[], None]
_FIRST = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)


class Graphs(Protocol):
    """What makes a call that does the same launches again, on the same memory."""

    def capture(self, call: Replay) -> Replay:
        """Return what repeats a call. It is made once or more meanwhile."""
        ...


class NoGraphs:
    """Every replay makes the call: on the CPU, and to debug."""

    def capture(self, call: Replay) -> Replay:
        return call


class CudaGraphs:
    """CUDA graphs of a device that share their memory: one at a time is replayed."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with torch.cuda.device(device):
            self._pool = torch.cuda.graph_pool_handle()

    def capture(self, call: Replay) -> Replay:
        with torch.cuda.device(self._device):
            # Kernels are compiled and loaded in a first call: that may not happen while recording.
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                call()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                call()
        return graph.replay


def buckets(slots: int) -> list[int]:
    """Return how many rows graphs are for, up to `slots`: 1, 2, 4, 8, 16, 24, 32, 48, 64, ...

    From 256 on they are 128 apart.
    """
    found = [size for size in _FIRST if size < slots]
    found += range(_FIRST[-1] + 128, slots, 128)
    return [*found, slots]


def bucket_of(rows: int, sizes: list[int]) -> int:
    """Return the smallest bucket that holds so many rows."""
    return next(size for size in sizes if size >= rows)
