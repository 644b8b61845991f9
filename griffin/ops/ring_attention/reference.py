"""Each new token with a softmax over the slots it sees, one token after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.live import write_live
from griffin.ops.rope import apply_rope, table_of_turns


def ring_attention(
    qkv: Tensor,
    keys: Tensor,
    values: Tensor,
    pos: Tensor,
    turns: Tensor,
    live: Tensor | None,
    out: Tensor,
) -> None:
    (rows, steps, width), (size, groups, head) = qkv.shape, keys.shape[1:]
    wide = torch.promote_types(qkv.dtype, torch.float32)
    heads = qkv.to(wide).view(rows, steps, width // head, head)
    q, k, v = heads.split([width // head - 2 * groups, groups, groups], dim=2)
    position = pos[:, None] + torch.arange(steps, device=pos.device)
    table = table_of_turns(position, turns, wide)
    q, k = apply_rope(q, table), apply_rope(k, table).to(qkv.dtype)
    each = torch.arange(rows, device=pos.device)
    slots = torch.arange(size, device=pos.device)
    old_k, old_v = keys[:rows], values[:rows]
    new_k, new_v = old_k.clone(), old_v.clone()
    parts = []
    for t in range(steps):
        at = position[:, t]
        # The slot that the new token takes holds the oldest one that it sees.
        taken = at % size
        seen_k = torch.cat([new_k, k[:, t : t + 1].to(keys.dtype)], dim=1).to(wide)
        seen_v = torch.cat([new_v, v[:, t : t + 1].to(values.dtype)], dim=1).to(wide)
        queries = q[:, t].unflatten(1, (groups, -1))
        scores = torch.einsum("bgnh,bsgh->bgns", queries, seen_k) * head**-0.5
        written = torch.cat(
            [slots < at[:, None], torch.ones_like(at, dtype=torch.bool)[:, None]], 1
        )
        scores = scores.masked_fill(~written[:, None, None], -torch.inf)
        seen_v = seen_v.masked_fill(~written[:, :, None, None], 0)
        y = torch.einsum("bgns,bsgh->bgnh", scores.softmax(-1), seen_v)
        parts.append(y.flatten(1))
        new_k[each, taken] = k[:, t].to(keys.dtype)
        new_v[each, taken] = v[:, t].to(values.dtype)
    write_live(torch.stack(parts, 1), live, out)
    write_live(new_k, live, old_k)
    write_live(new_v, live, old_v)
