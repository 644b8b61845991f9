"""The small parts every block is made of; none draws initial values, which live in init.py."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from griffin import ops
from griffin.model.config import GriffinConfig


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


class MLP(nn.Module):
    """The gated MLP: down(gelu(gate(x)) * up(x)). Griffin, section 2.2."""

    def __init__(self, config: GriffinConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.width, config.mlp_width)
        self.up_proj = Linear(config.width, config.mlp_width)
        self.down_proj = Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(ops.gated_gelu(self.gate_proj(x), self.up_proj(x)))
