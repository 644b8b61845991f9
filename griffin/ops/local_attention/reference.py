"""Local attention one query at a time, over the keys it may see and no others."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.local_attention import Window, next_ring


def local_attention(
    q: Tensor, k: Tensor, v: Tensor, window: Window, ring: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    rows, steps, heads, width = q.shape
    wide = torch.promote_types(q.dtype, torch.float32)
    group = heads // k.shape[2]
    out = []
    for b in range(rows):
        for t in range(steps):
            keys, values = [], []
            if ring is not None and window.segment[b, t] == 0:
                for slot in range(window.size):
                    held = window.slot_position[b, slot]
                    if held >= 0 and held >= window.position[b, t] - window.size:
                        keys.append(ring[0][b, slot])
                        values.append(ring[1][b, slot])
            for s in range(max(0, t - window.size), t + 1):
                same = window.segment[b, s] == window.segment[b, t]
                if s == t or (same and not window.pad[b, s]):
                    keys.append(k[b, s])
                    values.append(v[b, s])
            seen = torch.stack(keys).to(wide).repeat_interleave(group, dim=1)  # (keys, N, H)
            read = torch.stack(values).to(wide).repeat_interleave(group, dim=1)
            scores = torch.einsum("nh,knh->nk", q[b, t].to(wide), seen) * width**-0.5
            out.append(torch.einsum("nk,knh->nh", scores.softmax(-1), read))
    y = (
        (torch.stack(out) if out else q.new_empty(0, heads, width))
        .reshape(rows, steps, heads, width)
        .to(q.dtype)
    )
    old_k, old_v = ring or (None, None)
    return y, (next_ring(window, k, old_k), next_ring(window, v, old_v))
