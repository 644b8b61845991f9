"""What crosses between the host and a GPU beside its work: on a stream of its own.

The prefix cache keeps far more than a GPU has room for: what it keeps goes home by way of pinned
memory, and what it finds comes back so. Other devices copy as torch does. Unmeasured: it was
written without a GPU, and tried with streams that only take down what they are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from griffin.engine.pieces import RecurrentPart, Span, join, merge, window
from griffin.model import GriffinConfig, State


class Lane:
    """A device's stream for copies, beside the one that it works on.

    cuda: torch.cuda, or what stands for it. pin: the host's end of a copy lies in pinned memory.
    """

    def __init__(self, device: torch.device, cuda: Any = torch.cuda, pin: bool = True) -> None:
        self._device, self._cuda, self._pin = device, cuda, pin
        self._stream = cuda.Stream(device)

    def room(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Return memory of the host that copies go to and come from."""
        return torch.empty(shape, dtype=dtype, pin_memory=self._pin)

    def down(self, tensors: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """Return the device's values on the host, once they are there.

        Copied when what the device was asked before is done, while what it is asked afterwards
        goes on; the host waits for the copies alone.
        """
        self._stream.wait_stream(self._cuda.current_stream(self._device))
        with self._cuda.stream(self._stream):
            found = [
                self.room(*t.shape, dtype=t.dtype).copy_(t, non_blocking=True) for t in tensors
            ]
            there = self._stream.record_event()
        there.synchronize()
        return tuple(found)

    def up(self, make: Callable[[], State]) -> State:
        """Return a state that is made on the stream; what the device is asked afterwards waits for
        it there, and the host for nothing."""
        main = self._cuda.current_stream(self._device)
        with self._cuda.stream(self._stream):
            made = make()
        main.wait_stream(self._stream)
        made.map(lambda t: t.record_stream(main) or t)
        return made


@cache
def lane(device: torch.device) -> Lane | None:
    """Return a device's lane; None where there are no streams."""
    return Lane(device) if device.type == "cuda" else None


def to_host(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return values of one device in the host's memory: themselves if they lie there, and from a
    GPU in pinned memory, to be read at once."""
    if tensors[0].is_cpu:
        return tensors
    way = lane(tensors[0].device)
    return tuple(t.cpu() for t in tensors) if way is None else way.down(tensors)


def to_keep(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return values of one device in ordinary memory of the host; themselves if they lie there.

    Pinned memory is given out in powers of two, so a bound on what is kept there would not hold.
    """
    return tuple(
        home if home is t else home.clone()
        for t, home in zip(tensors, to_host(*tensors), strict=True)
    )


@torch.no_grad()
def restore(
    config: GriffinConfig,
    pos: int,
    recurrent: RecurrentPart,
    spans: Iterable[Span],
    dtype: torch.dtype,
    device: torch.device,
) -> State:
    """Put a state of one row together on a device, from parts on the host: `join` says of what.

    Keys and values are laid side by side on the host and cross in one copy each; on the device
    they go to their slots. Raises ValueError as `join` does.
    """
    if device.type == "cpu":
        return join(config, pos, recurrent, spans, dtype)
    way = lane(device)
    room = torch.empty if way is None else way.room
    needed = window(config, pos)
    whole = merge(spans, needed, room)
    parts = [*recurrent, whole.k, whole.v]
    if way is not None:
        parts = [way.room(*t.shape, dtype=t.dtype).copy_(t) for t in recurrent] + parts[2:]

    def make() -> State:
        conv, lru, k, v = (t.to(device, non_blocking=True) for t in parts)
        held = [whole._replace(k=k, v=v)] if needed else []
        return join(config, pos, RecurrentPart(conv, lru), held, dtype)

    return make() if way is None else way.up(make)
