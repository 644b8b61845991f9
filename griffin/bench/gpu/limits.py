"""The most that a GPU allows: bytes and operations of a token, the slower of the two."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from griffin.bench import work
from griffin.model import Griffin, GriffinConfig, State

# Bytes of a weight of a matrix; int4 has a float16 scale for 32 of them.
WEIGHT_BYTES = {"bf16": 2.0, "int8": 1.0, "int4": 4.5 / 8}
_LOGIT_BYTES = 2 * 4  # written in float32 and read once by the sampler


@dataclass(frozen=True)
class Ceiling:
    """What a chip does at most, as measured: bytes a second of a copy, read and written ones
    together, and bfloat16 operations a second of a matrix product."""

    bytes_per_second: float
    operations_per_second: float


# Read off one: a copy of 8.6 GB, a product of 8,192 x 8,192 x 8,192.
H200 = Ceiling(4.3e12, 790e12)


@dataclass(frozen=True)
class TokenLimit:
    """A call's bytes and operations, and the tokens a second that a ceiling allows.

    bound: "bytes" or "operations", whichever takes longer.
    """

    nbytes: float
    operations: float
    tokens_per_second: float
    bound: str


def weight_bytes(config: GriffinConfig, format: str) -> float:
    """Return the bytes of weights that a decode step reads: matrices and head in a format of
    WEIGHT_BYTES, all else in bfloat16.

    The scales of int8 (one a row) are left out; an embedding that is no head is not read.
    """
    matrices = sum(out * inputs * count for out, inputs, count in work.matrix_shapes(config))
    head = config.vocab_size * config.width
    with torch.device("meta"):
        total = sum(parameter.numel() for parameter in Griffin(config).parameters())
    others = total - matrices - head * (1 if config.tie_embeddings else 2)
    return (matrices + head) * WEIGHT_BYTES[format] + others * 2


def row_bytes(config: GriffinConfig, context: int | None = None) -> float:
    """Return the bytes that a row adds to a step after `context` tokens: its state in bfloat16, and
    its logits. A full window if omitted."""
    state = State.zeros(config, 1, dtype=torch.bfloat16, device="meta")
    seen = config.attention_window_size if context is None else context
    return work.state_bytes(state, seen) + config.vocab_size * _LOGIT_BYTES


def decode_limit(
    config: GriffinConfig,
    format: str,
    rows: int,
    ceiling: Ceiling = H200,
    context: int | None = None,
) -> TokenLimit:
    """Return the limit of a step of `rows` rows, the tokens of all of them counted.

    format:  of WEIGHT_BYTES. context: tokens each row has read; a full window if omitted.
    """
    seen = config.attention_window_size if context is None else context
    nbytes = weight_bytes(config, format) + rows * row_bytes(config, context)
    return _limit(nbytes, rows * work.operations(config, seen), rows, ceiling)


def prefill_limit(
    config: GriffinConfig, ceiling: Ceiling = H200, length: int | None = None
) -> TokenLimit:
    """Return the limit of reading a prompt of which the last logits alone are wanted.

    length: its tokens; without one, a token deep in a long prompt, which sees a full window. Bytes
            are left out: a chunk of 4,096 tokens reads the weights once.
    """
    if length is None:
        operations = float(work.operations(config, config.attention_window_size, head=False))
    else:
        operations = work.prefill_operations(config, length)
    return _limit(0.0, operations, 1, ceiling)


def _limit(nbytes: float, operations: float, tokens: int, ceiling: Ceiling) -> TokenLimit:
    moving, counting = (
        nbytes / ceiling.bytes_per_second,
        operations / ceiling.operations_per_second,
    )
    bound = "bytes" if moving > counting else "operations"
    return TokenLimit(nbytes, operations, tokens / max(moving, counting), bound)
