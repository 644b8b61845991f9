"""The programs that are timed, ours and the rivals: one file each, imported only where it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy

# name -> where it is, what has to be installed, and the formats of weights it has
PROGRAMS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "griffin": (
        "griffin.bench.programs.ours:Ours",
        "griffin-lm",
        ("stored", "float32", "bf16", "bf16-packed", "int8", "int4"),
    ),
    "transformers": (
        "griffin.bench.programs.with_transformers:Transformers",
        "transformers",
        ("stored", "float32", "bf16"),
    ),
    "recurrentgemma": (
        "griffin.bench.programs.with_recurrentgemma:RecurrentGemma",
        "recurrentgemma[torch]",
        ("stored", "float32", "bf16"),
    ),
    "llama.cpp": (
        "griffin.bench.programs.with_llama_cpp:LlamaCpp",
        "llama-cpp-python gguf",
        ("bf16", "int8", "int4"),
    ),
}
RIVALS = tuple(name for name in PROGRAMS if name != "griffin")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a program is started.

    model:   a checkpoint's path or name; for llama.cpp a GGUF file.
    format:  "stored", "float32", "bf16", "bf16-packed", "int8" or "int4".
    config:  fields of GriffinConfig, for rivals that cannot read a checkpoint by themselves.
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
        """Return the "bytes" and "operations" of a token when `batch` sequences have `context`
        tokens."""
        ...

    def prefill_work(self, length: int, start: int = 0) -> dict[str, float]:
        """Return the "bytes" and "operations" of one of `length` tokens of a prompt, read after
        `start`."""
        ...

    def vocabulary(self) -> int:
        """Return the number of ids."""
        ...
