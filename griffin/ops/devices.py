"""What the host gives to a device, and how it waits for one: the only places that know how."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def upload(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return numbers of the host as a tensor on a device, in one copy that nobody waits for."""
    made = torch.tensor(values, dtype=dtype)
    return made if device.type == "cpu" else pinned(made, device).to(device, non_blocking=True)


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host where a device copies from without the processor's help: a GPU
    reads pinned memory; the others take it as it lies."""
    return tensor.pin_memory() if device.type == "cuda" else tensor
