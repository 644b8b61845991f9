"""What the recurrence launches on a GPU at the widths of 2B, of tensors without values."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin import ops
from griffin.ops.launching import Launch, record
from griffin.ops.rg_lru import Gate

WIDTH, BLOCKS, TOKENS = 2560, 10, 4096
TYPES = (torch.bfloat16, torch.float32)


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor without values that has a gradient."""
    return torch.empty(shape, dtype=dtype, device="meta").requires_grad_()


def backward(*results: Tensor) -> None:
    """Run the gradient of all results."""
    torch.autograd.backward(results, [torch.empty_like(t) for t in results])


def linear_scan() -> list[Launch]:
    with record() as launches, ops.use("triton"):
        for dtype in TYPES:
            x, a = (empty(1, TOKENS, WIDTH, dtype=dtype) for _ in "xa")
            backward(*ops.linear_scan(x, a, empty(1, WIDTH)))
    return launches


def gates(dtype: torch.dtype) -> tuple[Gate, Gate]:
    size = WIDTH // BLOCKS
    one, other = (
        Gate(empty(BLOCKS, size, size, dtype=dtype), empty(BLOCKS, size, dtype=dtype)) for _ in "ir"
    )
    return one, other


def rg_lru() -> list[Launch]:
    with record() as launches, ops.use("triton"):
        for dtype in TYPES:
            x, param = empty(1, TOKENS, WIDTH, dtype=dtype), empty(WIDTH, dtype=dtype)
            at = torch.empty(1, TOKENS, dtype=torch.int64, device="meta")
            backward(*ops.rg_lru(x, *gates(dtype), param, at, empty(1, WIDTH)))
    return launches


@torch.no_grad()
def recurrent_step() -> list[Launch]:
    rows, taps = 8, 4
    with record() as launches, ops.use("triton"):
        for dtype in TYPES:
            x, gate = (empty(rows, WIDTH, dtype=dtype) for _ in "xy")
            weight, bias = empty(WIDTH, 1, taps, dtype=dtype), empty(WIDTH, dtype=dtype)
            param, at = empty(WIDTH, dtype=dtype), torch.empty(rows, dtype=torch.int64).to("meta")
            conv, lru = empty(rows, taps - 1, WIDTH, dtype=dtype), empty(rows, WIDTH)
            live = torch.empty(1, dtype=torch.int32, device="meta")
            states = conv.detach(), lru.detach()
            for kept in (None, states):
                ops.recurrent_step(
                    *(x, gate, weight, bias, *gates(dtype), param, at, *states, live, kept)
                )
    return launches


def local_attention() -> list[Launch]:
    """A token and a prompt, and a row that is learned from."""
    heads, head, window, dtype = 10, 256, 2048, torch.bfloat16
    with record() as launches, ops.use("triton"):
        for tokens, learned in ((1, False), (TOKENS, False), (TOKENS, True)):
            q, k, v = (empty(1, tokens, n, head, dtype=dtype) for n in (heads, 1, 1))
            at = torch.empty(1, tokens, dtype=torch.int64, device="meta")
            old_k, old_v = (empty(1, window, 1, head, dtype=dtype) for _ in "kv")
            for ring in (None, (old_k, old_v)):
                before = None if ring is None else at[:, 0]
                with torch.set_grad_enabled(learned):
                    plan = ops.plan_window(at, window, before)
                    y, _ = ops.local_attention(q, k, v, plan, ring)
                if learned:
                    backward(y)
    return launches


@torch.no_grad()
def causal_conv() -> list[Launch]:
    with record() as launches, ops.use("triton"):
        for dtype in TYPES:
            x, cache = empty(1, TOKENS, WIDTH, dtype=dtype), empty(1, 3, WIDTH, dtype=dtype)
            at = torch.empty(1, TOKENS, dtype=torch.int64, device="meta")
            weight, bias = empty(WIDTH, 1, 4, dtype=dtype), empty(WIDTH, dtype=dtype)
            ops.causal_conv(x, weight, bias, at, cache)
    return launches
