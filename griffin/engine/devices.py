"""What an engine does otherwise where its model lies on a GPU: everything that asks is here."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from griffin.model import State

_CPU_CHUNK, _DEVICE_CHUNK = 64, 4096


def default_chunk(device: torch.device, on_cpu: int = _CPU_CHUNK) -> int:
    """Return the tokens of a prompt that a call reads.

    Few on the CPU, so that others wait no longer than they must. A GPU reads all weights for 64
    tokens in the time it takes to compute with a thousand.
    """
    return on_cpu if device.type == "cpu" else _DEVICE_CHUNK


def marks_within(device: torch.device) -> bool:
    """Return whether states for the prefix cache are taken from inside of a call that is longer
    than its blocks."""
    return device.type != "cpu"


def to_host(tensor: Tensor) -> Tensor:
    """Return values where the prefix cache keeps them: in the host's memory, itself if it is there.

    It keeps far more than a GPU has room for, and what it finds goes back in a few milliseconds.
    """
    return tensor if tensor.is_cpu else tensor.cpu()


def to_device(state: State, device: torch.device) -> State:
    """Return a state of the host on a device, copied while what runs there goes on.

    From pinned memory and on a stream of its own, where the device has that; what is asked of the
    device afterwards waits for the copy there, and the host for nothing.
    """
    if device.type != "cuda":
        return state.map(lambda t: t.to(device))
    side, main = _side_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(side):
        moved = state.map(lambda t: t.pin_memory().to(device, non_blocking=True))
    main.wait_stream(side)
    moved.map(lambda t: t.record_stream(main) or t)
    return moved


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def finish(device: torch.device) -> None:
    """Wait until a device has done what it was told: only then is it known how long that took.

    What is queued is bounded so, too: never more than one piece of a prompt.
    """
    if device.type != "cpu":
        _module(device).current_stream(device).synchronize()


def _module(device: torch.device) -> torch.cuda:  # pyright: ignore[reportGeneralTypeIssues]
    return torch.get_device_module(device)


def out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error says that the host or a device had no memory left."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError)


def raise_if_lost(error: Exception) -> None:
    """Raise an error on that a device is not usable after: whoever runs there has to end."""
    if isinstance(error, torch.AcceleratorError):
        raise error
