"""The recurrence in blocks: a few passes over memory, whatever the length.

Time is cut into blocks of `BLOCK` steps. All blocks advance together, one step at a time, from a
zero state, while `a` becomes its running product; the blocks' last values form a recurrence `BLOCK`
times shorter, solved the same way; its solution, times the running products, is what each block
still lacked. The work is about that of the loop, in BLOCK * log_BLOCK(T) vector operations instead
of T.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BLOCK = 16


def linear_scan(x: Tensor, a: Tensor, h0: Tensor | None) -> tuple[Tensor, Tensor]:
    if h0 is None:
        h0 = x.new_zeros(x.shape[0], x.shape[2], dtype=torch.promote_types(x.dtype, torch.float32))
    return _LinearScan.apply(x, a, h0)  # pyright: ignore[reportReturnType]


class _LinearScan(torch.autograd.Function):
    """The gradient of a scan is the same scan run from the end: g[t] = dh[t] + a[t+1] g[t+1]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(x.dtype, torch.float32)
        h = x.to(wide, copy=True)
        h[:, 0].addcmul_(a[:, 0].to(wide), h0.to(wide))
        _solve(h, a.to(wide, copy=True))
        ctx.save_for_backward(a, h0, h)
        ctx.x_dtype = x.dtype
        return h.to(x.dtype, copy=True), h[:, -1].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dh, dlast = grads
        a, h0, h = ctx.saved_tensors
        g = dh.to(h.dtype).flip(1)
        g[:, 0] += dlast
        later = torch.zeros_like(h)
        later[:, 1:] = a[:, 1:].flip(1)
        _solve(g, later)
        g = g.flip(1)
        da = torch.empty_like(h)
        torch.mul(g[:, 1:], h[:, :-1], out=da[:, 1:])
        torch.mul(g[:, 0], h0.to(h.dtype), out=da[:, 0])
        dh0 = g[:, 0] * a[:, 0].to(h.dtype)
        return g.to(ctx.x_dtype), da.to(a.dtype), dh0.to(h0.dtype)


def _solve(x: Tensor, a: Tensor) -> None:
    """Replace x (B, T, E) by the solution that starts from zero; `a` is used up."""
    steps = x.shape[1]
    if steps <= BLOCK:
        for t in range(1, steps):
            x[:, t].addcmul_(a[:, t], x[:, t - 1])
        return
    whole = steps - steps % BLOCK
    xs = x[:, :whole].unflatten(1, (-1, BLOCK))
    products = a[:, :whole].unflatten(1, (-1, BLOCK))
    for t in range(1, BLOCK):
        xs[:, :, t].addcmul_(products[:, :, t], xs[:, :, t - 1])
        products[:, :, t] *= products[:, :, t - 1]
    ends = xs[:, :, -1].clone()
    _solve(ends, products[:, :, -1].clone())
    xs[:, 1:].addcmul_(products[:, 1:], ends[:, :-1, None])
    for t in range(whole, steps):  # the last, shorter block
        x[:, t].addcmul_(a[:, t], x[:, t - 1])
