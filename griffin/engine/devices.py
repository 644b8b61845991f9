"""What an engine does otherwise where its model lies on a GPU: everything that asks is here."""

from __future__ import annotations

import torch

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
