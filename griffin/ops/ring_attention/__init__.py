"""Attention of a few new tokens to a ring of past ones that lies in the slots, changed in place."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.dispatch import implementation
from griffin.ops.live import check_live

MOST_TOKENS = 8


def ring_attention(
    qkv: Tensor,
    keys: Tensor,
    values: Tensor,
    pos: Tensor,
    turns: Tensor,
    live: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Attend from each new token to itself and the S tokens before it, and keep it in the ring.

    qkv:    (B, T, (N + 2 K) H), 1 to 8 new tokens of each row as the product gives them: queries,
            keys and values, neither rotated nor scaled. Every row goes on with its document.
    keys, values: (B or more, S, K, H), keys rotated: position p lies in slot p mod S. Row i of qkv
            is of row i here. Changed in place: the new tokens take the oldest ones' slots, in the
            same launch. T is at most S.
    pos:    (B,) int64, tokens read before; slots that nothing was written to are not looked at.
    turns:  (R / 2,) int64 from `rope_turns`; the first R entries of a head are rotated.
    live:   (1,) int32: rows from there on are neither computed nor written (`few_rows`).
    out:    where to write the result.
    Returns (B, T, N H) in qkv.dtype: softmax and sums float32, in an order that B does not change.
    On a GPU it is one launch, and calls that share a device have to follow each other on one
    stream.
    Raises ValueError for shapes that do not match.
    Griffin (arXiv:2402.19427), section 2.3; the window counts as in `local_attention`: S + 1 keys.
    """
    rows, steps, width = qkv.shape if qkv.dim() == 3 else (0, 0, 0)
    if not rows or not 1 <= steps <= MOST_TOKENS:
        raise ValueError(f"qkv must be (B, 1 to {MOST_TOKENS}, W), not {tuple(qkv.shape)}")
    if keys.dim() != 4 or keys.shape != values.shape or keys.shape[0] < rows:
        raise ValueError(
            f"keys and values must be ({rows} or more, S, K, H), not {tuple(keys.shape)} and"
            f" {tuple(values.shape)}"
        )
    size, groups, head = keys.shape[1:]
    queries = width - 2 * groups * head
    if queries <= 0 or queries % (groups * head) or steps > size:
        raise ValueError(
            f"{steps} tokens of {width} values do not fit rings of {size} slots and {groups} heads"
            f" of {head}: they must be (N + 2 K) H, at most S of them"
        )
    if pos.shape != (rows,) or pos.dtype != torch.int64:
        raise ValueError(f"pos must be ({rows},) int64, not {tuple(pos.shape)} {pos.dtype}")
    if turns.dim() != 1 or turns.dtype != torch.int64 or 2 * len(turns) > head:
        raise ValueError(
            f"turns must be (at most {head // 2},) int64, not {tuple(turns.shape)} {turns.dtype}"
        )
    if out is not None and out.shape != (rows, steps, queries):
        raise ValueError(f"out must be {(rows, steps, queries)}, not {tuple(out.shape)}")
    check_live(live)
    run = implementation("ring_attention", qkv, keys, values, pos, turns, live, out)
    if out is None:
        out = qkv.new_empty(rows, steps, queries)
    run(qkv, keys, values, pos, turns, live, out)
    return out
