"""The small parts every block is made of; none draws initial values, which live in init.py."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from griffin import ops
from griffin.model.config import GriffinConfig

TOGETHER = 8192  # tokens of one row that an MLP reads at a time where gradients are wanted


def as_built(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether nobody replaced a layer or watches it, so that an op may do its work with
    another's."""
    hooks = module._forward_hooks, module._forward_pre_hooks
    back = module._backward_hooks, module._backward_pre_hooks
    return type(module) is kind and not any((*hooks, *back))


class Linear(nn.Linear):
    """x W^T + b, each row with the same bits whatever the others are."""

    def reset_parameters(self) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        return ops.linear(input, self.weight, self.bias)


class Embedding(nn.Embedding):
    """Token embeddings, times sqrt(D) in bfloat16 where the config says so (50.5 at 2,560)."""

    def __init__(self, config: GriffinConfig) -> None:
        super().__init__(config.vocab_size, config.width)
        scale = math.sqrt(config.width) if config.scale_embeddings else 1.0
        self.scale = torch.tensor(scale, dtype=torch.bfloat16, device="cpu").item()

    def reset_parameters(self) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.scale

    def unembed(self, hidden: Tensor) -> Tensor:
        """Multiply hidden states (..., D) by the embedding, as a tied head does: (..., V)."""
        return ops.linear(hidden, self.weight)


class RMSNorm(nn.Module):
    """Normalise to a root mean square of one, times (1 + weight)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return ops.rms_norm(x, self.weight, self.eps)

    def after(self, x: Tensor, add: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the norm of a residual stream that something was added to, and the stream."""
        if as_built(self, RMSNorm):
            return ops.residual_norm(x, add, self.weight, self.eps)
        x = x if add is None else x + add
        return self(x), x


class MLP(nn.Module):
    """The gated MLP: down(gelu(gate(x)) * up(x)). Griffin, section 2.2."""

    def __init__(self, config: GriffinConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.width, config.mlp_width)
        self.up_proj = Linear(config.width, config.mlp_width)
        self.down_proj = Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1 or x.dim() < 3 or x.shape[1] <= TOGETHER or not torch.is_grad_enabled():
            return self._read(x)
        # What goes back through the gate is freed with what was kept for it, piece by piece.
        return torch.cat([self._read(part) for part in x.split(TOGETHER, dim=1)], dim=1)

    def _read(self, x: Tensor) -> Tensor:
        return gated(self.gate_proj(x), self.up_proj(x), self.down_proj)


def gated(gate: Tensor, x: Tensor, out: nn.Module) -> Tensor:
    """Return out(gelu(gate) * x), as one op where `out` is a Linear as it was built."""
    if as_built(out, Linear):
        return ops.gated_linear(gate, x, cast(Tensor, out.weight), cast(Tensor | None, out.bias))
    return out(ops.gated_gelu(gate, x))
