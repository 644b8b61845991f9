"""Tensors in files, by the names the files give them; every layout has a source of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

# What a checkpoint may hold, under the names of the safetensors format.
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
# What a file may hold: a checkpoint's types, and the bytes of packed weights.
STORED: dict[str, torch.dtype] = DTYPES | {"U8": torch.uint8}
DTYPE_NAMES = {dtype: name for name, dtype in STORED.items()}


class Source(Protocol):
    """A lazy collection of named tensors on disk, or made up on demand."""

    files: tuple[Path, ...]

    def names(self) -> list[str]:
        """Return the stored names in the order of the files."""
        ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> torch.dtype: ...

    def where(self, name: str) -> Path:
        """Return the file (or folder) that holds a tensor, for messages."""
        ...

    def read(self, name: str) -> Tensor:
        """Return a tensor, as a view of mapped memory where the layout allows it."""
        ...

    def release(self) -> None:
        """Forget mapped memory. Tensors already handed out stay valid."""
        ...
