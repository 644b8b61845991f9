"""What an adapter costs at decode: the same model with and without it, by turns in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import griffin
from griffin.adapters import Adapter, LoraConfig, adapt
from griffin.model import Griffin, State

_TOKENS = 4  # of a turn: short, so that what else the machine does meets both alike


@dataclass(frozen=True)
class Cost:
    """What one format's decode takes. Seconds a token; `share` is the median over pairs of turns.

    adapter_bytes, model_bytes: that a token reads of each.
    """

    format: str
    rows: int
    without: float
    with_: float
    share: float
    adapter_bytes: int
    model_bytes: int

    @property
    def bytes_share(self) -> float:
        """The cost that the adapter's bytes alone would have."""
        return self.adapter_bytes / self.model_bytes


def new_adapter(model: Griffin, rank: int) -> Adapter:
    """Return an adapter of all linear layers whose values are drawn, none of them zero."""
    generator = torch.Generator().manual_seed(0)
    config = LoraConfig(rank=rank)
    made = Adapter.new("drawn", config, model.config, generator)
    tensors = {
        key: tensor if tensor.any() else 0.01 * torch.randn(tensor.shape, generator=generator)
        for key, tensor in made.tensors.items()
    }
    return Adapter(made.name, config, tensors)


def adapter(
    model: str | Path,
    formats: Sequence[str],
    *,
    rank: int,
    rows: int,
    prompt: int,
    pairs: int,
) -> Iterator[Cost]:
    """Decode `rows` sequences after `prompt` tokens in each format, with the adapter and without.

    Each of `pairs` pairs is two turns of a few tokens that follow each other, the first with and
    without by turns. The adapter has the model's type, as one that was loaded has.
    """
    for format in formats:
        base = griffin.load_model(model, device="cpu", quantize=format)
        tensors = (*base.parameters(), *base.buffers())
        model_bytes = sum(tensor.nbytes for tensor in tensors)
        added = new_adapter(base, rank)
        adapt(base, added)
        adapter_bytes = sum(t.numel() for t in added.tensors.values()) * base.dtype.itemsize
        turn = _Turns(base, rows, prompt)
        for which in (0, -1):  # the first of its kind prepares
            turn.seconds(which)
        found: dict[int, list[float]] = {0: [], -1: []}
        for number in range(pairs):
            for which in (0, -1) if number % 2 else (-1, 0):
                found[which].append(turn.seconds(which))
        shares = [a / b - 1 for a, b in zip(found[0], found[-1], strict=True)]
        yield Cost(
            format=format,
            rows=rows,
            without=statistics.median(found[-1]),
            with_=statistics.median(found[0]),
            share=statistics.median(shares),
            adapter_bytes=adapter_bytes,
            model_bytes=model_bytes,
        )


class _Turns:
    """Some tokens at a time, after the same prompt: the same work in every turn."""

    def __init__(self, model: Griffin, rows: int, prompt: int) -> None:
        self._model = model
        self._rows = rows
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(model.config.vocab_size, (rows, prompt + 1), generator=generator)
        self._last = ids[:, -1:]
        with torch.no_grad():
            _, self._state = model.trunk(ids[:, :-1])

    @torch.no_grad()
    def seconds(self, which: int) -> float:
        """Return the seconds that a token takes, read with adapter `which`, -1 for none."""
        model, tokens = self._model, self._last
        state: State = self._state
        chosen = [which] * self._rows
        hidden, state = model.trunk(tokens, state, adapters=chosen)  # copies what later calls take
        begun = time.perf_counter()
        for _ in range(_TOKENS):
            hidden, state = model.trunk(tokens, state, donate=True, adapters=chosen)
            tokens = model.unembed(hidden[:, -1]).argmax(-1, keepdim=True)
        return (time.perf_counter() - begun) / _TOKENS
