"""What a screened head saves at decode: one model with its whole head and behind the screen, by
turns in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from griffin.bench.work import decode_bytes
from griffin.loading import load_model
from griffin.model import Griffin
from griffin.model.screen import unembed_best

_TOKENS = 2  # of a turn: short, so that what else the machine does meets all alike
Bits = Literal[2, 3]
# Whether there is a screen, and how many bits of it are read.
_WAYS: dict[str, tuple[bool, Bits]] = {
    "whole": (False, 2),
    "greedy": (True, 2),
    "drawn from all": (True, 3),
}


@dataclass(frozen=True)
class Spared:
    """What one way takes. Seconds a token, the median of its turns; `faster` is the median, over
    rounds, of how many times as fast as with the whole head, between its quartiles; `of_bytes` what
    its bytes alone would make of it."""

    way: str
    seconds: float
    faster: float
    quartiles: tuple[float, float]
    bytes_per_token: int
    of_bytes: float


def screened(model: str, *, prompt: int, rounds: int) -> Iterator[Spared]:
    """Decode one sequence after `prompt` tokens in each way, a few tokens a turn.

    model: with a packed head, as `griffin quantize` writes it.
    """
    plain, screen = (load_model(model, screen=flag) for flag in (False, True))
    _share(screen, plain)
    turns = {
        way: _Turn(screen if flag else plain, bits, prompt) for way, (flag, bits) in _WAYS.items()
    }
    seconds: dict[str, list[float]] = {way: [] for way in turns}
    order = list(turns)
    for number in range(rounds + 1):
        for way in order[number % len(order) :] + order[: number % len(order)]:
            taken = turns[way].seconds()
            if number:  # the first of its kind prepares
                seconds[way].append(taken)
    whole = decode_bytes(plain)
    for way, turn in turns.items():
        shares = [a / b for a, b in zip(seconds["whole"], seconds[way], strict=True)]
        low, middle, high = statistics.quantiles(shares, n=4)
        moved = decode_bytes(turn.model, _WAYS[way][1])
        taken = statistics.median(seconds[way])
        yield Spared(way, taken, middle, (low, high), moved, whole / moved)


def _share(model: Griffin, first: Griffin) -> None:
    """Let two models of one checkpoint have their weights once, which is how they lie in memory."""
    buffers = dict(first.named_buffers())
    for prefix, module in model.named_modules():
        for name, tensor in module.named_buffers(prefix, recurse=False):
            if name in buffers and buffers[name].shape == tensor.shape:
                setattr(module, name.rpartition(".")[2], buffers[name])


class _Turn:
    """Some tokens at a time, after the same prompt: the same work in every turn."""

    def __init__(self, model: Griffin, bits: Bits, prompt: int) -> None:
        self.model = model
        self._bits: Bits = bits
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(model.config.vocab_size, (1, prompt + 1), generator=generator)
        self._last = ids[:, -1:]
        with torch.no_grad():
            _, self._state = model.trunk(ids[:, :-1])

    @torch.no_grad()
    def seconds(self) -> float:
        """Return the seconds that a token takes."""
        tokens, state = self._last, self._state.clone()
        begun = time.perf_counter()
        for _ in range(_TOKENS):
            hidden, state = self.model.trunk(tokens, state, donate=True)
            logits = unembed_best(self.model, hidden[:, -1], self._bits)
            tokens = logits.argmax(-1, keepdim=True)
        return (time.perf_counter() - begun) / _TOKENS
