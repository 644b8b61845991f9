"""The local attention block: few key and value heads, half-rotated heads, a ring of past keys and
values."""

from __future__ import annotations

from torch import Tensor, nn

from griffin import ops
from griffin.model.config import GriffinConfig
from griffin.model.layers import Linear
from griffin.model.left import Left
from griffin.model.state import AttentionState


class LocalAttentionBlock(nn.Module):
    """Local multi-query attention. Griffin (arXiv:2402.19427), section 2.3."""

    def __init__(self, config: GriffinConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        kv_width = config.num_kv_heads * config.head_dim
        self.q_proj = Linear(config.width, config.width, bias=config.attention_bias)
        self.k_proj = Linear(config.width, kv_width, bias=config.attention_bias)
        self.v_proj = Linear(config.width, kv_width, bias=config.attention_bias)
        self.o_proj = Linear(config.width, config.width)

    def forward(
        self,
        x: Tensor,
        window: ops.Window,
        rope: tuple[Tensor, Tensor],
        state: AttentionState | None,
        left: Left | None = None,
    ) -> tuple[Tensor, AttentionState]:
        q, k, v = (
            p(x).unflatten(-1, (-1, self.head_dim)) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = ops.apply_rope(q, rope), ops.apply_rope(k, rope)
        if left is not None:
            assert state is not None
            state = left.attention(k, v, window, state)
        y, ring = ops.local_attention(q, k, v, window, state)
        return self.o_proj(y.flatten(-2)), AttentionState(*ring)
