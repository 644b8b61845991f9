"""Adapters of the toy model in a folder, strong enough that each of them answers differently."""

from __future__ import annotations

from pathlib import Path

from griffin.adapters import Adapter, LoraConfig, save_adapter
from tests.adapters.test_layers import make_adapter
from tests.support.toy_folder import CONFIG


def write_adapter(folder: Path, config: LoraConfig | None = None, seed: int = 0) -> Path:
    """Write an adapter of the toy model; return its folder, whose name is its own."""
    made = make_adapter(config or LoraConfig(rank=3), CONFIG, seed, folder.name)
    strong = {key: 4 * tensor for key, tensor in made.tensors.items()}
    return save_adapter(Adapter(folder.name, made.config, strong), folder)
