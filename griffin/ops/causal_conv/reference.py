"""The convolution token by token: a list of what each row still remembers."""

from __future__ import annotations

import torch
from torch import Tensor


def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor, segment_pos: Tensor, cache: Tensor
) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(x.dtype, torch.float32)
    taps = weight[:, 0].to(wide)  # (E, W), the newest token's tap last
    rows, caches = [], []
    for b in range(x.shape[0]):
        memory = list(cache[b].to(wide))
        out = []
        for t in range(x.shape[1]):
            if segment_pos[b, t] < 0:
                out.append(torch.zeros_like(x[b, t], dtype=wide))
                continue
            if segment_pos[b, t] == 0:
                memory = [torch.zeros_like(m) for m in memory]
            seen = torch.stack([*memory, x[b, t].to(wide)])  # (W, E)
            out.append((seen * taps.T).sum(0) + bias.to(wide))
            memory = [*memory, x[b, t].to(wide)][1:]
        rows.append(torch.stack(out))
        caches.append(torch.stack(memory) if memory else cache[b].to(wide))
    if not rows:
        return torch.empty_like(x), torch.empty_like(cache)
    return torch.stack(rows).to(x.dtype), torch.stack(caches).to(cache.dtype)
