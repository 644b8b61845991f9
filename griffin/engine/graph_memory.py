"""What stepping by graphs takes on a device besides weights and slots, by arithmetic."""

from __future__ import annotations

import torch

from griffin.engine.flight import TABLES, StepMemory
from griffin.engine.pieces import recurrent_bytes, span_bytes
from griffin.model import GriffinConfig

_PART = 256  # slots of a ring that a program of the attention reads
_LIST = 1 << 15  # bytes in which the draw of a row sorts out what it keeps


def graph_bytes(config: GriffinConfig, dtype: torch.dtype, slots: int) -> int:
    """Return the bytes that graphs for up to `slots` rows take.

    What a step is told and tells, with the tables of 32 rows; of each row its logits in float32,
    and what it goes back by a token with; and what lies between two launches of the largest graph,
    an upper estimate. That is not multiplied by the number of graphs: one at a time is replayed,
    so all of them lie in the memory of the largest, which is captured first. What CUDA keeps of
    each graph itself is not counted.
    """
    told = StepMemory(slots, config.vocab_size, min(slots, TABLES), "meta").nbytes
    kept = recurrent_bytes(config, dtype) + span_bytes(config, dtype) + torch.int64.itemsize
    return told + slots * (4 * config.vocab_size + kept + _between(config, dtype))


def _between(config: GriffinConfig, dtype: torch.dtype) -> int:
    """Return the bytes of a row that a step's launches hand to each other, as if none were given
    back."""
    width, heads = config.width, config.num_heads
    wide = 3 * width + 3 * config.lru_width + config.mlp_width
    wide += (heads + 2 * config.num_kv_heads) * config.head_dim
    parts = -(-config.attention_window_size // _PART)
    return wide * dtype.itemsize + parts * heads * (config.head_dim + 2) * 4 + _LIST
