"""Quantized weights on disk: packed as the kernels read them, so that nothing is converted.

A matrix `X.weight` (O, I) lies in the safetensors as `X.weight_packed`, bytes by the panel of 16
output rows, and at int8 `X.weight_scale`, one float32 an output row. Everything else has its usual
name. A preview of the head is `screen.weight_packed` and `screen.weight_low`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from griffin.checkpoints.errors import CheckpointError, listed
from griffin.checkpoints.names import head_name, tensor_shapes
from griffin.checkpoints.quantization_config import Quantization
from griffin.checkpoints.safetensors_files import Planned, SafetensorsSource
from griffin.model import GriffinConfig
from griffin.model.packed import SCREEN
from griffin.quant.storage import DATA, Packed, join, stored_parts, unpack

PREVIEW = SCREEN + ".weight"  # as if it were one more matrix of the model


def packed_plan(shape: tuple[int, ...], format: str) -> dict[str, Planned]:
    """Return the tensors that hold a packed matrix (O, I), by what their names add to its name."""
    return {part: Planned(*stored) for part, stored in stored_parts(shape, format).items()}


class QuantizedSource:
    """The tensors of a quantized checkpoint under their usual names and shapes.

    `read` unpacks; `packed` gives a matrix as it lies, mapped. Matrices count as the type of the
    norms.
    """

    def __init__(
        self, source: SafetensorsSource, config: GriffinConfig, quantization: Quantization
    ) -> None:
        """Check names, shapes and types; raise CheckpointError that names file and tensor."""
        self.files = source.files
        self.quantization = quantization
        self._source = source
        shapes = tensor_shapes(config)
        self._formats = quantization.formats(config)
        self._shapes = {name: shapes[name] for name in self._formats}
        self._inner = dict(self._shapes)
        if quantization.screen is not None:
            self._formats[PREVIEW] = quantization.screen
            self._inner[PREVIEW] = shapes[head_name(config)]
        self._parts = {
            name: packed_plan(self._inner[name], format) for name, format in self._formats.items()
        }
        self._check()
        self._dtype = source.dtype("model.final_norm.weight")

    def names(self) -> list[str]:
        inner = {name + part for name, parts in self._parts.items() for part in parts}
        return [*self._shapes, *(name for name in self._source.names() if name not in inner)]

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name] if name in self._shapes else self._source.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        return self._dtype if name in self._shapes else self._source.dtype(name)

    def where(self, name: str) -> Path:
        return self._source.where(name + DATA if name in self._shapes else name)

    def is_packed(self, name: str) -> bool:
        return name in self._shapes

    def nbytes(self, name: str) -> int:
        """Return the bytes a tensor takes on disk."""
        if name in self._parts:
            return sum(planned.size for planned in self._parts[name].values())
        return self._source.dtype(name).itemsize * torch.Size(self._source.shape(name)).numel()

    def read(self, name: str) -> Tensor:
        return (
            unpack(self.packed(name), self._dtype)
            if name in self._shapes
            else self._source.read(name)
        )

    def packed(self, name: str) -> Packed:
        """Return a matrix as it lies in the file, mapped; PREVIEW's is the head's preview."""
        parts = {part: self._source.read(name + part) for part in self._parts[name]}
        return join(parts, self._inner[name], self._formats[name])

    def release(self) -> None:
        self._source.release()

    def _check(self) -> None:
        stored = set(self._source.names())
        where = self.files[0] if len(self.files) == 1 else self.files[0].parent
        missing = [name + part for name, parts in self._parts.items() for part in parts]
        if absent := [name for name in missing if name not in stored]:
            raise CheckpointError(
                f"{where} lacks {listed(absent)}, expected because its config.json says it is"
                f" {self.quantization.format}"
            )
        if "model.final_norm.weight" not in stored:
            raise CheckpointError(f"{where} lacks model.final_norm.weight")
        for name, parts in self._parts.items():
            for part, planned in parts.items():
                found = self._source.shape(name + part), self._source.dtype(name + part)
                if found != (planned.shape, planned.dtype):
                    raise CheckpointError(
                        f"{self._source.where(name + part)}: {name + part} is {list(found[0])}"
                        f" {found[1]}, expected {list(planned.shape)} {planned.dtype} for"
                        f" {self._formats[name]} weights of {list(self._inner[name])}"
                    )
