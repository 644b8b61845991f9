"""What a decode step launches on a GPU at the widths of 2B, of tensors without values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from griffin import ops
from griffin.ops.launching import Launch, record

WIDTH, INNER, VOCABULARY, WINDOW, HEADS, HEAD = 2560, 7680, 256_000, 2048, 10, 256
FORMATS = (None, "int8", "int4")


def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def laid(outputs: int, inputs: int, format: str | None, dtype: torch.dtype) -> ops.Laid:
    """Return weights without values, of widths that are whole blocks."""
    bias = empty(outputs, dtype=dtype)
    if format is None:
        return ops.Laid(empty(outputs, inputs, dtype=dtype), None, bias, None, inputs)
    bits = int(format[3:])
    words = empty(outputs, -(-inputs // 256) * 8 * bits, dtype=torch.int32)
    scale = empty(outputs, dtype=torch.float32)
    if bits == 4:
        scale = empty(-(-inputs // 256) * 8, outputs, dtype=torch.float16)
    return ops.Laid(words, scale, bias, format, inputs)


def products(rows: int, format: str | None, dtype: torch.dtype = torch.bfloat16) -> None:
    """Make every kind of product that a step has."""
    x, inner = empty(rows, WIDTH, dtype=dtype), empty(rows, INNER, dtype=dtype)
    norm = empty(WIDTH, dtype=dtype)
    live = empty(1, dtype=torch.int32)

    def make(x: Tensor, outputs: int, **more: Any) -> None:
        weights = laid(outputs, x.shape[1], format, dtype)
        ops.few_rows(x, weights, eps=1e-6, live=live, **more)

    make(x, 2 * WIDTH, norm=norm)  # both branches of a recurrent block
    make(x, WIDTH + 2 * HEAD, norm=norm)  # queries, keys, values
    make(x, WIDTH, residual=x, out=x)
    make(x, 2 * INNER, norm=norm, gated=True)
    make(inner, WIDTH, residual=x, out=x)
    make(x, VOCABULARY, norm=norm, cap=30.0, out_dtype=torch.float32)


def few_rows() -> list[Launch]:
    with record() as launches, ops.use("triton"):
        for rows in (1, 64):
            for format in FORMATS:
                products(rows, format)
    return launches


def in_float32() -> list[Launch]:
    with record() as launches, ops.use("triton"):
        products(64, None, torch.float32)
    return launches


def ring_attention() -> list[Launch]:
    with record() as launches, ops.use("triton"):
        for tokens in (1, 8):
            qkv = empty(4, tokens, (HEADS + 2) * HEAD)
            keys, values = (empty(4, WINDOW, 1, HEAD) for _ in "kv")
            pos, turns = empty(4, dtype=torch.int64), empty(HEAD // 4, dtype=torch.int64)
            ops.ring_attention(qkv, keys, values, pos, turns, empty(1, dtype=torch.int32))
    return launches


def look_up_rows() -> list[Launch]:
    ids = empty(4, dtype=torch.int64)
    with record() as launches, ops.use("triton"):
        for format in FORMATS:
            weights = laid(VOCABULARY, WIDTH, format, torch.bfloat16)
            ops.look_up_rows(ids, weights, 50.5, torch.bfloat16, empty(1, dtype=torch.int32))
            ops.look_up_rows(None, weights, 1.0, torch.bfloat16)
    return launches


def draw_tokens() -> list[Launch]:
    rows, places = 4, 2
    types = {"int": torch.int32, "wide": torch.float64, "float": torch.float32}

    def some(kind: str, *shape: int) -> Tensor:
        return empty(*shape, dtype=types[kind])

    draw = ops.Draw(
        uniform=some("wide", rows),
        temperature=some("float", rows),
        top_k=some("int", rows),
        top_p=some("wide", rows),
        min_p=some("wide", rows),
        repetition=some("float", rows),
        presence=some("float", rows),
        frequency=some("float", rows),
        places=some("int", 4, rows),
        counts=some("int", places, VOCABULARY),
        bias=some("float", places, VOCABULARY),
        masks=some("int", places, VOCABULARY // 32),
    )
    with record() as launches, ops.use("triton"):
        ops.draw_tokens(some("float", rows, VOCABULARY), draw, some("int", 1))
    return launches


def keep_before() -> list[Launch]:
    rows, layers = 4, 8

    def some(*shape: int) -> tuple[Tensor, Tensor]:
        keys, values = (empty(layers, rows, *shape, 1, HEAD) for _ in "kv")
        return keys, values

    pos = empty(rows, dtype=torch.int64)
    with record() as launches, ops.use("triton"):
        ops.keep_before(some(WINDOW), pos, some(), pos, empty(1, dtype=torch.int32))
    return launches
