"""The product and what stands around it, unpacked and in float32 or wider, rounded once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from griffin.ops.few_rows.laid import Laid, unlay
from griffin.ops.live import write_live


def few_rows(
    x: Tensor,
    weights: Laid,
    norm: Tensor | None,
    eps: float,
    gated: bool,
    cap: float,
    residual: Tensor | None,
    live: Tensor | None,
    out: Tensor,
) -> None:
    wide = torch.promote_types(x.dtype, torch.float32)
    y = x.to(wide)
    if norm is not None:
        y = y * torch.rsqrt(y.square().mean(1, keepdim=True) + eps) * (1 + norm.to(wide))
    y = y @ unlay(weights, wide).T
    if weights.bias is not None:
        y = y + weights.bias.to(wide)
    if gated:
        gate, y = y.chunk(2, dim=1)
        y = functional.gelu(gate, approximate="tanh") * y
    if cap:
        y = cap * torch.tanh(y / cap)
    if residual is not None:
        y = y + residual.to(wide)
    write_live(y, live, out)
