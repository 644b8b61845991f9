"""A State where transformers keeps keys and values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast

from griffin.model import State

# As transformers calls what a model has read: 5.24 gave it another name and takes both.
NAME = "cache" if "cache" in BaseModelOutputWithPast.__annotations__ else "past_key_values"


class GriffinCache(Cache):
    """What a batch has read: `past_key_values` of our models, of a size that does not grow.

    state:  where to go on, copied; nothing read yet if omitted. `cache.state` is the cache's own:
            the next call uses it up, so keep `cache.state.clone()` or `copy.deepcopy(cache)`.
    hidden: (B, D) what the trunk gave for each row's last token, for pads that follow it; None
            before the first call.

    A state cannot be cut back to an earlier token (`crop`); a copy made there can be gone on from.
    """

    def __init__(self, state: State | None = None) -> None:
        super().__init__(layers=[])
        self.state = None if state is None else state.clone()
        self.hidden: Tensor | None = None
        self.length = 0 if state is None or not state.batch else int(state.pos.max())

    def __len__(self) -> int:
        return 0 if self.state is None else len(self.state.layers)

    def __repr__(self) -> str:
        return f"GriffinCache(length={self.length}, state={self.state})"

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many columns were read, pads included: what `generate` counts in."""
        return self.length

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Return -1: there is no limit."""
        return -1

    @property
    def batch_size(self) -> int:
        return -1 if self.state is None else self.state.batch

    @property
    def is_initialized(self) -> bool:
        return self.state is not None

    @property
    def is_croppable(self) -> bool:
        return False

    @property
    def is_linear(self) -> list[bool]:
        """Say of every layer that it counts columns, as `generate` asks before it cuts a text to
        what is new."""
        return [False] * max(1, len(self))

    def reset(self) -> None:
        self.state, self.hidden, self.length = None, None, 0

    def crop(self, tokens_to_remove: int) -> None:
        """Raise ValueError, unless there is nothing to remove."""
        if tokens_to_remove:
            raise ValueError(
                "a Griffin model's state cannot be cut back to an earlier token; keep"
                " copy.deepcopy(cache) of where you will want to return to"
            )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order and as often as named."""
        if self.state is not None:
            indices = torch.as_tensor(indices, device=self.state.pos.device)
            self.state = self.state.select(indices)
            self.hidden = None if self.hidden is None else self.hidden[indices]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row, next to itself."""
        if self.state is not None:
            rows = torch.arange(self.state.batch).repeat_interleave(repeats)
            self.batch_select_indices(rows)

    def update(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        raise ValueError(
            "a GriffinCache holds no keys of a single layer; it is the model's to fill"
        )


def one_cache(cache: Any, past_key_values: Any) -> GriffinCache | None:
    """Return what was given by either name; ValueError for both, and for no cache of ours."""
    if cache is not None and past_key_values is not None:
        raise ValueError("give cache or past_key_values, two names of one thing, not both")
    found = past_key_values if cache is None else cache
    if found is None or isinstance(found, GriffinCache):
        return found
    raise ValueError(
        f"the cache (past_key_values) is a {type(found).__name__}; this model goes on from a"
        " griffin.hf.GriffinCache, such as it returns itself"
    )
