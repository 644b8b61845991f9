"""What adapters take, before a weight of the model is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from griffin.model import GriffinConfig


def adapter_facts(
    folders: Mapping[str, str], config: GriffinConfig, dtype: torch.dtype
) -> list[dict[str, Any]]:
    """Return what each adapter is, as plain values: name, rank, targets, whole, bytes, digest.

    folders: by their names. bytes: that it takes in a model of this type.
    Raises ValueError for one that does not fit the model, or cannot stand beside the others.
    """
    from griffin.adapters import check_together, open_adapter

    adapters = [open_adapter(folder, name) for name, folder in folders.items()]
    for adapter in adapters:
        adapter.check(config)
    if adapters:
        check_together(adapters)
    return [
        {
            "name": adapter.name,
            "rank": adapter.config.rank,
            "targets": list(adapter.config.targets),
            "whole": list(adapter.config.whole),
            "bytes": sum(tensor.numel() for tensor in adapter.tensors.values()) * dtype.itemsize,
            "digest": adapter.digest(),
        }
        for adapter in adapters
    ]
