"""A checkpoint of any layout under one set of names; nothing is read before it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from griffin.checkpoints.errors import CheckpointError, listed, one_line
from griffin.checkpoints.names import EMBEDDING, HEAD, tensor_shapes
from griffin.checkpoints.quantization_config import Quantization
from griffin.checkpoints.quantized import PREVIEW, QuantizedSource
from griffin.checkpoints.rename import COPY, Rule
from griffin.checkpoints.source import DTYPES, Source
from griffin.model import GriffinConfig
from griffin.quant.storage import Packed

Layout = Literal["huggingface", "deepmind-torch", "deepmind-flax", "random"]

# Values looked at in one go while searching for NaN, comparing or copying: 32 MiB of bfloat16.
BLOCK = 1 << 24
# Moved tensors (transposed, cut from a pair) are read through a mapping of their own, dropped after
# this many bytes: the pages of the original do not stay resident beside the copy.
SCRATCH = 256 << 20


@dataclass(frozen=True)
class Origin:
    """Where one of our tensors comes from."""

    rule: Rule
    part: int


class Checkpoint:
    """Weights on disk under Hugging Face names.

    config   the model's shape.
    layout   what the files are: "huggingface" (our own saves too), "deepmind-torch" or
             "deepmind-flax".
    folder   where tokenizer files would lie.
    files    every file that holds weights.
    notes    what was left out while reading, one sentence each.
    own_dtype  the type the model has if no other is asked for.
    """

    def __init__(
        self,
        config: GriffinConfig,
        layout: Layout,
        reopen: Callable[[], Source],
        folder: Path,
        rules: Mapping[str, Rule] | None = None,
        source: Source | None = None,
        notes: tuple[str, ...] = (),
        stated: torch.dtype | None = None,
    ) -> None:
        """Check names, shapes and types against the config; raise CheckpointError for the first
        that differ.

        `reopen` opens the files once more, for reading what need not stay mapped; `rules` are given
        for layouts with names of their own; `notes` say what was found before, and `stated` is the
        type that the config says the weights have.
        """
        self.config = config
        self.layout: Layout = layout
        self.folder = folder
        self.notes = tuple(map(one_line, notes))
        self._source = source if source is not None else reopen()
        self._reopen = reopen
        self._scratch: Source | None = None
        self._scratched = 0
        # Stored tensors of which one part was read: the other is asked for soon, and decoding takes
        # long.
        self._halves: dict[str, Tensor] = {}
        self._shapes = tensor_shapes(config)
        if rules is None:
            rules = {name: Rule(name, (name,), COPY) for name in self._shapes}
        self._origins = {
            ours: Origin(rule, part)
            for rule in rules.values()
            for part, ours in enumerate(rule.huggingface)
        }
        assert set(self._origins) == set(self._shapes), (
            "the rename table must name every tensor once"
        )
        self._check(rules)
        self.own_dtype = self._own_dtype(stated)

    @property
    def files(self) -> tuple[Path, ...]:
        return self._source.files

    def names(self) -> list[str]:
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    @property
    def quantization(self) -> Quantization | None:
        """How matrices are quantized, None if not. `read` unpacks them, `packed` does not."""
        return self._source.quantization if isinstance(self._source, QuantizedSource) else None

    def is_packed(self, name: str) -> bool:
        """Return whether a tensor is a quantized matrix."""
        return isinstance(self._source, QuantizedSource) and self._source.is_packed(name)

    def packed(self, name: str) -> Packed:
        """Return a matrix of a quantized checkpoint as it lies on disk, mapped."""
        assert isinstance(self._source, QuantizedSource), (
            "only a quantized checkpoint holds packed matrices"
        )
        return self._source.packed(name)

    def preview(self) -> Packed | None:
        """Return the preview of a quantized checkpoint's head as it lies on disk, if it has one."""
        if self.quantization is None or self.quantization.screen is None:
            return None
        return self.packed(PREVIEW)

    def dtype(self, name: str) -> torch.dtype:
        """Return the type a tensor is stored in; that of the norms for a quantized matrix."""
        return self._source.dtype(self._origins[name].rule.stored)

    def _own_dtype(self, stated: torch.dtype | None) -> torch.dtype:
        """Return the one type in which the model computes if no other is asked for.

        That of the weights; where they have several the one that their config states, or else that
        of the first tensor by name, the embedding: as transformers does.
        """
        types = {self.dtype(name) for name in self._shapes if not self.is_packed(name)}
        if len(types) > 1:
            found = stated or self.dtype(min(self._shapes))
            self.notes += (
                f"{self.folder} holds weights in {listed(sorted(map(str, types)))}; all are used in"
                f" {found}, {'as its config says' if stated else 'the type of the embedding'}",
            )
            return found
        (found,) = types
        if stated not in (None, found):
            self.notes += (
                f"{self.folder} holds weights in {found}, and they are used so, though its config"
                f" says {stated}; dtype chooses another type",
            )
        return found

    def where(self, name: str) -> Path:
        """Return the file that holds a tensor."""
        return self._source.where(self._origins[name].rule.stored)

    @property
    def nbytes(self) -> int:
        """The size of all weights as stored, in bytes."""
        preview = self.preview()
        return sum(map(self.size, self._shapes)) + (0 if preview is None else preview.nbytes)

    def size(self, name: str) -> int:
        """Return the size of a tensor as stored, in bytes."""
        if isinstance(self._source, QuantizedSource):
            return self._source.nbytes(name)
        return self.dtype(name).itemsize * torch.Size(self._shapes[name]).numel()

    def read(self, name: str) -> Tensor:
        """Return a tensor under its Hugging Face name, contiguous, on the CPU, in its stored type.

        A view of mapped memory where the file's values lie in the same order; pages are read when
        touched.
        """
        origin = self._origins[name]
        if origin.rule.transform.views:
            return self._part(self._source, name).contiguous()
        return self._moved(name)

    def read_apart(self, name: str) -> Tensor:
        """Do as `read`, for a tensor that is used once: nothing stays mapped after many of them."""
        origin = self._origins[name]
        return self._part(self._spare(origin), name).contiguous()

    def _moved(self, name: str) -> Tensor:
        part = self._part(self._spare(self._origins[name]), name)
        return part.clone(memory_format=torch.contiguous_format)

    def _spare(self, origin: Origin) -> Source:
        stored = origin.rule.stored
        size = self._source.dtype(stored).itemsize * torch.Size(self._source.shape(stored)).numel()
        if self._scratch is None:
            self._scratch = self._reopen()
        elif self._scratched + size > SCRATCH:
            self._scratch.release()
            self._scratched = 0
        self._scratched += size
        return self._scratch

    def _part(self, source: Source, name: str) -> Tensor:
        origin = self._origins[name]
        stored = origin.rule.stored
        whole = self._halves.pop(stored, None)
        if whole is None:
            whole = source.read(stored)
            if len(origin.rule.huggingface) > 1:
                self._halves[stored] = whole
                while len(self._halves) > 2:
                    del self._halves[next(iter(self._halves))]
        part = origin.rule.transform.split(whole)[origin.part]
        return part[: self._shapes[name][0]]  # a longer embedding: the rows beyond are padding

    def _check(self, rules: Mapping[str, Rule]) -> None:
        stored = self._source.names()
        where = self.folder if len(self.files) != 1 else self.files[0]
        tied_head = self.config.tie_embeddings and self.layout == "huggingface"
        there = set(stored)
        missing = [name for name in rules if name not in there]
        surplus = [
            name for name in stored if name not in rules and not (tied_head and name == HEAD)
        ]
        if missing or surplus:
            parts = [f"lacks {listed(missing)}"] if missing else []
            parts += [f"holds {listed(surplus)}, which this model does not have"] if surplus else []
            raise CheckpointError(f"{where} does not fit its config: it {' and '.join(parts)}")
        for name, rule in rules.items():
            expected, found = rule.shape(self._shapes), self._source.shape(name)
            rows_only = rule.huggingface[0] in (EMBEDDING, HEAD) and len(found) == 2
            if rows_only and found[1:] == expected[1:] and found[0] > expected[0]:
                self.notes += (
                    (
                        f"{self._source.where(name)}: {name} has {found[0]} rows, the vocabulary"
                        f" {expected[0]}; the last {found[0] - expected[0]} are left out"
                    ),
                )
            elif found != expected:
                raise CheckpointError(
                    f"{self._source.where(name)}: {name} has shape {list(found)}, expected"
                    f" {list(expected)}"
                )
            if self._source.dtype(name) not in DTYPES.values():
                raise CheckpointError(
                    f"{self._source.where(name)}: {name} has dtype {self._source.dtype(name)};"
                    f" expected one of {', '.join(str(d) for d in DTYPES.values())}"
                )

    def release(self) -> None:
        """Forget mapped memory. Tensors already handed out stay valid, and keep theirs."""
        self._source.release()

    def check_finite(self, name: str, tensor: Tensor) -> None:
        """Raise CheckpointError that names tensor and file if a value is NaN or infinite."""
        for block in tensor.reshape(-1).split(BLOCK):
            low, high = torch.aminmax(block) if block.numel() else (block.sum(), block.sum())
            if torch.isfinite(low) and torch.isfinite(high):
                continue
            bad = int((~torch.isfinite(tensor)).sum())
            raise CheckpointError(
                f"{self.where(name)}: {name} holds {bad} values that are NaN or infinite, of"
                f" {tensor.numel()}"
            )

    def digest(self) -> str:
        """Return 32 hexadecimal digits that identify the weights as these files hold them.

        A BLAKE2 hash of the config, of names, shapes and types, and of one 4 KiB block from every
        MiB of every file (small files whole). Milliseconds for megabytes, about a second for
        gigabytes; a change confined to bytes between the samples goes unnoticed, a retrained or
        fine-tuned model does not. The same weights in another layout or other shards have another
        digest.
        """
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr(self.config).encode())
        for name in sorted(self._source.names()):
            digest.update(
                f"{name} {self._source.shape(name)} {self._source.dtype(name)}\n".encode()
            )
        for file in self.files:
            _sample(file, digest.update)
        return digest.hexdigest()


def _sample(file: Path, update: Callable[[bytes], None]) -> None:
    size = file.stat().st_size
    update(f"{file.name} {size}\n".encode())
    with file.open("rb") as stream:
        if size <= 1 << 20:
            update(stream.read())
            return
        for offset in (*range(0, size, 1 << 20), size - 4096):
            stream.seek(offset)
            update(stream.read(4096))


def same_values(left: Tensor, right: Tensor) -> bool:
    """Return whether two tensors of one shape hold the same values, comparing block by block."""
    wide = torch.promote_types(left.dtype, right.dtype)
    pairs: Iterable[tuple[Tensor, Tensor]] = zip(
        left.reshape(-1).split(BLOCK), right.reshape(-1).split(BLOCK), strict=True
    )
    return all(torch.equal(one.to(wide), other.to(wide)) for one, other in pairs)
