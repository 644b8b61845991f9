"""Projections of one input, multiplied one by one and as one, forward and backward, by turns.

One product over joined weights is the most that joining could give: its result is left in one
piece, and its gradient is given as one. A layer would have to cut the one and join the other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from griffin.bench.measurement import Measurement


def joined(
    *, widths: Sequence[int], head: int, tokens: int, dtype: str, threads: int, rounds: int
) -> Iterator[tuple[Measurement, Measurement]]:
    """Yield of each layer's projections how long they take apart, and as one product.

    widths: of models; their projections of one input are x and y of a recurrent block, queries,
    keys and values of an attention block with one head of keys of width `head`, gate and up of an
    MLP three times as wide. The ratio of the second of a pair is its speed over that of the first.
    """
    kind: torch.dtype = getattr(torch, dtype)
    for width in widths:
        layers = {
            "x, y": (width, width),
            "queries, keys, values": (width, head, head),
            "gate, up": (3 * width, 3 * width),
        }
        for name, outs in layers.items():
            apart, one = _seconds(width, outs, tokens, kind, rounds)
            place = {
                "program": "torch",
                "model": f"{width} to {', '.join(map(str, outs))}",
                "format": dtype,
                "threads": threads,
                "batch": 1,
                "context": tokens,
            }
            what = f"{name} of {width}"
            yield (
                _measurement(what, place, tokens, apart, None),
                _measurement(f"{what}, joined", place, tokens, one, apart),
            )


def _seconds(
    width: int, outs: Sequence[int], tokens: int, dtype: torch.dtype, rounds: int
) -> tuple[float, float]:
    """Return the best of `rounds` of the projections apart, and of one product."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    x = draw(tokens, width).requires_grad_()
    weights = [draw(out, width).requires_grad_() for out in outs]
    weight = torch.cat(weights).detach().requires_grad_()
    dys = [draw(tokens, out) for out in outs]
    dy, apart, one = torch.cat(dys, dim=1), float("inf"), float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        ys = [functional.linear(x, each) for each in weights]
        torch.autograd.grad(ys, [x, *weights], dys)
        middle = time.perf_counter()
        torch.autograd.grad(functional.linear(x, weight), [x, weight], dy)
        apart, one = min(apart, middle - start), min(one, time.perf_counter() - middle)
    return apart, one


def _measurement(
    what: str, place: dict[str, Any], tokens: int, seconds: float, beside: float | None
) -> Measurement:
    """beside: seconds of what its speed is compared with."""
    return Measurement(
        what=what,
        **place,
        tokens_per_second=tokens / seconds,
        seconds=seconds,
        bytes_per_token=None,
        operations_per_token=None,
        read_bytes_per_second=None,
        operations_per_second=None,
        limit_tokens_per_second=None if beside is None else tokens / beside,
        ratio=None if beside is None else beside / seconds,
    )
