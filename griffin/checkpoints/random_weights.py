"""Random weights of true shape, tensor by tensor: a checkpoint without files, for benchmarks."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import torch
from torch import Tensor

from griffin.checkpoints.checkpoint import Checkpoint
from griffin.checkpoints.names import tensor_shapes
from griffin.model import GriffinConfig
from griffin.model.init import init_parameter, init_std

# Values drawn at a time: their float32 originals stay in the processor's caches.
_BLOCK = 1 << 20


class RandomSource:
    """Draws a tensor whenever it is read; the same seed and name give the same values."""

    def __init__(self, config: GriffinConfig, dtype: torch.dtype, seed: int) -> None:
        self.files: tuple[Path, ...] = ()
        self._config = config
        self._dtype = dtype
        self._seed = seed
        self._shapes = tensor_shapes(config)

    def names(self) -> list[str]:
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def dtype(self, name: str) -> torch.dtype:
        return self._dtype

    def where(self, name: str) -> Path:
        return Path("random weights")

    def read(self, name: str) -> Tensor:
        """Draw as `griffin.model.init` does: normal values, the recurrence's own law, zeros for
        biases."""
        # A generator of its own for each tensor: the values do not depend on the order of reading.
        key = hashlib.blake2b(f"{self._seed} {name}".encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key, "little"))
        out = torch.empty(self._shapes[name], dtype=self._dtype)
        flat = out.view(-1)
        if name.endswith("recurrent_param"):
            init_parameter(name, out, self._config, generator)
        elif (std := init_std(name, self._config)) == 0:
            out.zero_()
        else:
            for begin in range(0, flat.numel(), _BLOCK):
                block = flat[begin : begin + _BLOCK]
                block.copy_(torch.randn(block.shape, generator=generator).mul_(std))
        return out

    def release(self) -> None:
        """Do nothing: nothing is kept."""


def random_checkpoint(
    config: GriffinConfig, dtype: torch.dtype = torch.bfloat16, seed: int = 0
) -> Checkpoint:
    """Return a checkpoint of random weights, distributed as a new model's and drawn when read."""
    if not isinstance(seed, int) or seed < 0 or math.log2(seed + 1) > 63:
        raise ValueError(f"seed must be a whole number from 0 to 2^63 - 1, not {seed!r}")

    def source() -> RandomSource:
        return RandomSource(config, dtype, seed)

    return Checkpoint(config, "random", source, Path())
