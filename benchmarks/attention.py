"""Window attention as training runs it, forward and backward, beside torch's causal attention.

By turns in one process, the best of several: torch's sees every token of the row before a query,
ours those of the window, from fresh random rows of one document each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from griffin import ops


class Found(NamedTuple):
    """Seconds of the forward and the backward of one way to attend."""

    name: str
    rows: int
    length: int
    forward: float
    backward: float

    @property
    def both(self) -> float:
        return self.forward + self.backward


def windowed(size: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return ours, with a window of `size` tokens."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        where = torch.arange(q.shape[1]).expand(q.shape[:2])
        return ops.local_attention(q, k, v, ops.plan_window(where, size, None))[0]

    return attend


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend to all that came before, as a transformer of one key head does."""
    k, v = (t.transpose(1, 2).expand(-1, q.shape[2], -1, -1) for t in (k, v))
    y = functional.scaled_dot_product_attention(q.transpose(1, 2), k, v, is_causal=True)
    return y.transpose(1, 2)


def attention(
    length: int,
    *,
    tokens: int,
    heads: int,
    width: int,
    window: int,
    dtype: torch.dtype,
    rounds: int,
) -> Iterator[Found]:
    """Yield ours, ours in torch alone, and torch's causal attention; `tokens` in rows of a length.

    heads: of queries, each `width` wide, to one head of keys.
    """
    rows = max(1, tokens // length)
    generator = torch.Generator().manual_seed(0)

    def draw(n: int) -> Tensor:
        return torch.randn(rows, length, n, width, generator=generator).to(dtype)

    inputs = [draw(n).requires_grad_() for n in (heads, 1, 1)]
    dy = draw(heads)
    ours = windowed(window)

    def eager(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with ops.use("eager"):
            return ours(q, k, v)

    ways = {"griffin": ours, "griffin in torch": eager, "causal": causal}
    best = {name: (float("inf"), float("inf")) for name in ways}
    for _ in range(rounds):
        for name, attend in ways.items():
            start = time.perf_counter()
            y = attend(inputs[0], inputs[1], inputs[2])
            middle = time.perf_counter()
            torch.autograd.grad(y, inputs, dy)
            took = middle - start, time.perf_counter() - middle
            best[name] = (min(best[name][0], took[0]), min(best[name][1], took[1]))
    for name, (forward, backward) in best.items():
        yield Found(name, rows, length, forward, backward)
