"""A LLaMA-style transformer: what training speed is measured beside.

Its attention is torch's own; norms, rotation and gate are griffin's, so that what differs is the
architecture and not who fused his passes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from griffin import ops
from griffin.model.layers import Linear, RMSNorm, gated

EPS = 1e-6


class Block(nn.Module):
    """Causal attention with rotated heads, then a gated MLP, each behind an RMSNorm."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = RMSNorm(width, EPS), RMSNorm(width, EPS)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            Linear(width, width, bias=False) for _ in range(4)
        )
        self.gate_proj, self.up_proj = (Linear(width, mlp_width, bias=False) for _ in range(2))
        self.down_proj = Linear(mlp_width, width, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        inner, x = self.attention_norm.after(x)
        q, k, v = (
            p(inner).unflatten(-1, (self.heads, -1))
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k, v = (t.transpose(1, 2) for t in (ops.apply_rope(q, rope), ops.apply_rope(k, rope), v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        inner, x = self.mlp_norm.after(x, self.o_proj(y.transpose(1, 2).flatten(-2)))
        return x + gated(self.gate_proj(inner), self.up_proj(inner), self.down_proj)


class Llama(nn.Module):
    """The trunk; its head is the embedding."""

    def __init__(self, vocab: int, width: int, layers: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, width)
        self.layers = nn.ModuleList(Block(width, heads, mlp_width) for _ in range(layers))
        self.final_norm = RMSNorm(width, EPS)
        self.head_dim = width // heads
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
            else:
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        """Read tokens (B, T); return what the head looks at, (B, T, D)."""
        positions = torch.arange(tokens.shape[1]).expand_as(tokens)
        rope = ops.rope_table(positions, self.head_dim, 10_000.0, torch.float32)
        x = self.embed_tokens(tokens)
        for block in self.layers:
            x = block(x, rope)
        return self.final_norm(x)
