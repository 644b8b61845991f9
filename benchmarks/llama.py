"""A plain LLaMA-style transformer in torch: what training speed is measured beside."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Causal attention with rotated heads, then a gated MLP, each behind an RMSNorm."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width, 1e-6), nn.RMSNorm(width, 1e-6)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * mlp_width, bias=False)
        self.down = nn.Linear(mlp_width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        parts = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # each (B, N, T, H)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(-2))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.down(functional.silu(gate) * up)


class Llama(nn.Module):
    """The trunk; its head is the embedding."""

    def __init__(self, vocab: int, width: int, layers: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, width)
        self.layers = nn.ModuleList(Block(width, heads, mlp_width) for _ in range(layers))
        self.final_norm = nn.RMSNorm(width, 1e-6)
        self.head_dim = width // heads
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Read tokens (B, T); return what the head looks at, (B, T, D)."""
        half = torch.arange(0, self.head_dim, 2) / self.head_dim
        angles = torch.arange(tokens.shape[1])[:, None] / 10_000**half
        x, cos, sin = self.embed_tokens(tokens), angles.cos(), angles.sin()
        for block in self.layers:
            x = block(x, cos, sin)
        return self.final_norm(x)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate heads (B, N, T, H) by angles (T, H / 2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)
