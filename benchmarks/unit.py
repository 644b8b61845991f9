"""The recurrent unit and the scan as training runs them, beside what bounds them, by turns.

The unit's limit is its gates' products at the rate of torch's product of the same type, plus one
and a half copies of what it must read and write. The scan's measure is a plain copy of its bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from griffin import ops
from griffin.bench.measurement import Measurement
from griffin.ops.rg_lru import Gate

_PRODUCT = 2048, 2560, 7680  # tokens, in and out of the product whose rate is taken


class Beside(NamedTuple):
    """Seconds of a forward and a backward pass, and of what each is measured by.

    product_rate: operations a second of torch's product, where one was taken. copy_rate: bytes a
    second, read and written.
    """

    forward: float
    forward_limit: float
    backward: float
    backward_limit: float
    product_rate: float | None = None
    copy_rate: float | None = None

    def rates(self, format: str) -> dict[str, float]:
        """Return what a report keeps of the machine's rates. format: of the product's numbers."""
        product = " x ".join(f"{size:,}" for size in _PRODUCT)
        found = {
            f"products of {product}, {format}": self.product_rate,
            "read and written by a copy": self.copy_rate,
        }
        return {name: rate for name, rate in found.items() if rate is not None}

    def measurements(
        self, name: str, beside: tuple[str, str], place: dict[str, Any]
    ) -> list[Measurement]:
        """Return both passes for a report; the share of a limit is its `ratio`, 1 at the limit.

        beside: what each pass is measured by. place: program, model, format, threads, batch and
        context.
        """
        tokens = place["batch"] * place["context"]
        passes = (
            ("forward", self.forward, self.forward_limit),
            ("backward", self.backward, self.backward_limit),
        )
        return [
            Measurement(
                what=f"{name} {which}, beside {by}",
                **place,
                tokens_per_second=tokens / seconds,
                seconds=seconds,
                bytes_per_token=None,
                operations_per_token=None,
                read_bytes_per_second=self.copy_rate,
                operations_per_second=self.product_rate,
                limit_tokens_per_second=tokens / limit,
                ratio=limit / seconds,
            )
            for (which, seconds, limit), by in zip(passes, beside, strict=True)
        ]


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def unit(
    rows: int, length: int, width: int, blocks: int, dtype: torch.dtype, rounds: int
) -> Beside:
    """Time `ops.recurrent_unit` on `rows` documents of `length`, of `width` in `blocks` gates.

    x is of `dtype`, as under autocast; weights and h are float32. The best of `rounds` of each.
    """
    generator, size = torch.Generator().manual_seed(0), width // blocks

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=generator) * scale

    def weight(*shape: int) -> Tensor:
        return draw(*shape, scale=size**-0.5).requires_grad_()

    x = draw(rows, length, width).to(dtype).requires_grad_()
    taps, bias, param = weight(width, 1, 4), weight(width), weight(width)
    gates = [Gate(weight(blocks, size, size), weight(blocks, size)) for _ in range(2)]
    positions = torch.arange(length).expand(rows, length)
    leaves = [x, taps, bias, *gates[0], *gates[1], param]
    dy, source = draw(rows, length, width).to(dtype), torch.zeros_like(x)
    target = torch.empty_like(source)
    tokens, inner, outer = _PRODUCT
    one, other = draw(tokens, inner).to(dtype), draw(inner, outer).to(dtype)

    def go() -> Tensor:
        return ops.recurrent_unit(x, taps, bias, gates[0], gates[1], param, positions)[0]

    product = copy = forward = backward = float("inf")
    for _ in range(rounds):
        product = min(product, _seconds(lambda: one @ other))
        copy = min(copy, _seconds(lambda: target.copy_(source)))
        start = time.perf_counter()
        y = go()
        middle = time.perf_counter()
        torch.autograd.grad(y, leaves, dy)
        forward = min(forward, middle - start)
        backward = min(backward, time.perf_counter() - middle)
    rate = 2 * tokens * inner * outer / product
    products = 2 * rows * length * width * 2 * size / rate
    # A copy reads and writes x once; back, dy and x are read and dx is written.
    limits = products + 1.5 * copy, 3 * products + 1.5 * 1.5 * copy
    return Beside(forward, limits[0], backward, limits[1], rate, 2 * source.nbytes / copy)


def scan(rows: int, length: int, width: int, rounds: int) -> Beside:
    """Time `ops.linear_scan` in float32; forward beside a copy of as many bytes as it moves,
    backward beside its own forward pass."""
    x = torch.ones(rows, length, width).requires_grad_()
    a = torch.full_like(x, 0.9).requires_grad_()
    moved = torch.zeros(x.numel() * 3 // 2)  # read and written: three tensors of x's size
    copy = forward = backward = float("inf")
    for _ in range(rounds):
        copy = min(copy, _seconds(moved.clone))
        with torch.no_grad():
            forward = min(forward, _seconds(lambda: ops.linear_scan(x, a)))
        h, _ = ops.linear_scan(x, a)
        slope = torch.ones_like(h)
        backward = min(backward, _seconds(partial(torch.autograd.grad, h, [x, a], slope)))
    return Beside(forward, copy, backward, forward, copy_rate=2 * moved.nbytes / copy)
