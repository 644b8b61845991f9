"""Whether the kernels of a decode step serve a model, and if not, why."""

from __future__ import annotations

import torch

from griffin.model.config import GriffinConfig
from griffin.ops import launching

MOST_HEAD = 256  # entries of a head of attention that the kernel has room for
_TYPE = torch.bfloat16  # of the model; its matrices may be packed


def why_no_kernels(
    config: GriffinConfig, dtype: torch.dtype, device: torch.device | str, adapters: bool = False
) -> str | None:
    """Return why a model takes its decode steps as calls of its modules; None: as kernels.

    device: where it lies; a GPU need not be here to be asked about its model. adapters: it has
    some.
    """
    place = torch.device(device)
    if place.type != "cuda":
        return f"the model lies on {place}, and the kernels are a GPU's"
    if (missing := launching.why_not(place.index)) is not None:
        return missing
    return why_unfit(config, dtype, adapters)


def why_unfit(config: GriffinConfig, dtype: torch.dtype, adapters: bool = False) -> str | None:
    """Return why no GPU takes a model's decode steps as kernels; None: some do."""
    if dtype != _TYPE:
        name = str(dtype).removeprefix("torch.")
        return f"the model is {name}, and the kernels are for bfloat16, plain or packed"
    if "attention" in config.block_types and config.head_dim > MOST_HEAD:
        return f"heads are {config.head_dim} wide, and the kernel has room for {MOST_HEAD}"
    if adapters:
        return "the model has adapters, which no kernel adds"
    return None
