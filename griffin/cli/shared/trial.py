"""A short trial of a model's shape here: its first layers, random weights, real time."""

from __future__ import annotations

import statistics
import time
from itertools import cycle, islice

import torch

from griffin.capacity import plan
from griffin.model import Griffin, GriffinConfig, State
from griffin.quant import quantize_model

# Bytes of weights: more than the caches hold, so that each step reads them from memory.
LEAST = 192 << 20
# That are tried; more take longer in proportion, for then it is products that take the time.
MOST_ROWS = 64
_IDS = 4096  # rows of the embedding
_SECONDS = 0.3


class Trial:
    """A model's first layers, LEAST bytes of them, and how fast steps of them move bytes.

    layers: how many they are. Their weights are random small numbers in the model's type and
            format.
    """

    def __init__(self, config: GriffinConfig, dtype: torch.dtype, format: str | None) -> None:
        few = config.replace(vocab_size=min(_IDS, config.vocab_size), tie_embeddings=True)
        kinds = len(set(config.block_types))
        self.layers = next(
            count
            for count in range(1, config.num_layers + 1)
            if count == config.num_layers
            or (
                len(set(config.block_types[:count])) == kinds
                and _weights(few.replace(block_types=config.block_types[:count]), dtype, format)
                >= LEAST
            )
        )
        self._config = few.replace(block_types=config.block_types[: self.layers])
        self._plan = plan(self._config, ram_bytes=1 << 62, dtype=dtype, format=format, slots=1)
        with torch.device("meta"):
            model = Griffin(self._config).to(dtype)
        self._model = model.to_empty(device="cpu").requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        for parameter in self._model.parameters():
            parameter.uniform_(-0.02, 0.02, generator=generator)
        if format is not None:
            quantize_model(self._model, format)

    @torch.no_grad()
    def rate(self, rows: int) -> float:
        """Return the bytes a second that a step of so many rows moves, their windows full."""
        context = self._config.attention_window_size
        state = State.zeros(self._config, rows, dtype=self._model.dtype)
        state.pos.fill_(context)
        tokens = (
            torch.tensor(list(islice(cycle(range(7, 97, 3)), rows)))[:, None]
            % self._config.vocab_size
        )
        times: list[float] = []
        end = time.perf_counter() + _SECONDS
        while len(times) < 5 or time.perf_counter() < end:
            begun = time.perf_counter()
            hidden, state = self._model.trunk(tokens, state, donate=True)
            self._model.unembed(hidden[:, -1]).argmax(-1)
            times.append(time.perf_counter() - begun)
        return self._plan.step_bytes(rows, context) / statistics.median(times[1:])


def _weights(config: GriffinConfig, dtype: torch.dtype, format: str | None) -> int:
    return plan(config, ram_bytes=1 << 62, dtype=dtype, format=format, slots=1).weight_bytes
