"""What a program that is timed has to do, and how a run is told of one.

Ours is the only one this room knows. A run is handed others as values (`Plan.against`): those of
benchmarks/, which a checkout has and the package has not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A program that can be timed.

    name:      in tables and messages.
    where:     "module:Class" of its Program; only the process it runs in imports that.
    root:      the folder the module is found in, where that is not griffin's.
    packages:  what pip installs for it.
    formats:   that it has, of OURS.formats.
    otherwise: the format it runs in where it has none of those that ours has; without one, that is
               an error.
    weights:   gives the path of what it loads for a format; without it, the run's checkpoint.
    """

    name: str
    where: str
    packages: tuple[str, ...]
    formats: tuple[str, ...]
    root: Path | None = None
    otherwise: str | None = None
    weights: Callable[[str], str] | None = None

    def formats_beside(self, ours: Sequence[str]) -> list[str]:
        """Return the formats to run it in beside ours; ValueError where it has none of them."""
        wanted = dict.fromkeys(name.removesuffix("-packed") for name in ours)
        found = [name for name in wanted if name in self.formats]
        if not found and self.otherwise is not None:
            found = [self.otherwise]
        if not found:
            *most, last = self.formats
            raise ValueError(
                f"{self.name} has none of the formats {', '.join(wanted)}; choose --format"
                f" {', '.join(most)} or {last}"
            )
        return found


OURS = Contender(
    name="griffin",
    where="griffin.bench.ours:Ours",
    packages=("griffin-lm",),
    formats=(
        *("stored", "float32", "bf16", "bf16-packed", "int8", "int4"),
        *("int8-screen", "int8-screen-drawn"),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a program is started.

    model:   a checkpoint's path or name, or what the program's `weights` gave.
    format:  one of OURS.formats.
    config:  fields of our model's GriffinConfig, for programs that cannot read them by themselves.
    threads: CPU threads.
    chunk:   tokens of a prompt that are read at once, where the program can go on with a prompt.
    """

    model: str
    format: str
    threads: int
    chunk: int
    config: dict[str, Any] | None = None


class Program(Protocol):
    """A loaded model that reads tokens and continues greedily.

    model, format: what it calls them. weight_bytes: bytes of weights a step reads.
    resumes: a second `read` goes on where the first ended; otherwise a prompt is read in one call.
    """

    model: str
    format: str
    weight_bytes: int
    resumes: bool

    def forget(self, batch: int, capacity: int) -> None:
        """Begin anew with `batch` sequences that will have up to `capacity` tokens."""
        ...

    def read(self, tokens: numpy.ndarray) -> None:
        """Read (batch, T) int64 tokens and compute the logits of the last ones."""
        ...

    def step(self) -> None:
        """Read each sequence's most probable next token, and compute the logits after it."""
        ...

    def decode_work(self, context: int, batch: int) -> dict[str, float]:
        """Return "bytes" and "operations" of a token, `batch` sequences having `context` tokens."""
        ...

    def prefill_work(self, length: int, start: int = 0) -> dict[str, float]:
        """Return the "bytes" and "operations" of one of `length` tokens of a prompt, read after
        `start`."""
        ...

    def vocabulary(self) -> int:
        """Return the number of ids."""
        ...
