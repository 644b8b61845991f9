"""By what an adapter knows its base again, rounded to int8 or int4 or not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from griffin.checkpoints import Checkpoint
from griffin.checkpoints.names import matrix_names

_ROWS = 4  # of a matrix that are looked at


@dataclass(frozen=True)
class BaseMark:
    """Say on which weights an adapter was trained, by digests of their values in bfloat16.

    name:     what they were called, for people.
    kept:     of all that quantization leaves as it is: norms, biases, convolutions, gates and
              Lambda. A copy in bfloat16, int8 or int4 has the same.
    matrices: of four rows of every matrix; "" where they were packed, or in files whose rows lie
              otherwise.
    """

    name: str
    kept: str
    matrices: str = ""

    @classmethod
    def of(cls, source: Checkpoint, name: str) -> BaseMark:
        """Return the mark of a checkpoint: at 2B some 50 MB of its files are read."""
        packed = set(matrix_names(source.config))
        kept = ((key, source.read(key)) for key in source.names() if key not in packed)
        in_rows = source.layout == "huggingface" and source.quantization is None
        mark = cls(name, _digest(kept), _digest(_rows(source)) if in_rows else "")
        source.release()
        return mark

    @classmethod
    def parse(cls, fields: object, where: str) -> BaseMark:
        """Return the mark that `to_dict` gave; ValueError, opened by `where`, for anything else."""
        wanted = {"name", "kept", "matrices"}
        if (
            not isinstance(fields, Mapping)
            or set(fields) != wanted
            or not all(isinstance(value, str) for value in fields.values())
        ):
            raise ValueError(f"{where} must be an object of texts: {', '.join(sorted(wanted))}")
        return cls(**fields)

    def to_dict(self) -> dict[str, str]:
        """Return its fields as plain values."""
        return asdict(self)

    def unlike(self, other: BaseMark) -> str:
        """Return what differs, in words; "" for marks of one model, or of copies of it."""
        if self.kept != other.kept:
            return "norms, biases or gates"
        both = self.matrices and other.matrices
        return "matrices" if both and self.matrices != other.matrices else ""


def _rows(source: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    for key in matrix_names(source.config):
        rows = source.shape(key)[0]
        places = torch.linspace(0, rows - 1, min(_ROWS, rows), dtype=torch.float64).long()
        yield key, source.read(key)[places]


def _digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for key, tensor in tensors:
        narrow = tensor.to(torch.bfloat16).contiguous()
        total.update(f"{key} {tuple(narrow.shape)}\n".encode())
        total.update(narrow.view(torch.uint8).numpy().data)
    return total.hexdigest()
