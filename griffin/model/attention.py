"""The local attention block: few key and value heads, half-rotated heads, a ring of past keys and
values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from griffin import ops
from griffin.model.config import GriffinConfig
from griffin.model.layers import Linear
from griffin.model.left import Left
from griffin.model.marks import Marks
from griffin.model.state import AttentionState
from griffin.model.trail import Step, Trail


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
        marks: Marks | None = None,
    ) -> tuple[Tensor, AttentionState]:
        q, k, v = self._projected(x)
        q, k = ops.apply_rope(q, rope), ops.apply_rope(k, rope)
        if left is not None:
            assert state is not None
            state = left.attention(k, v, window, state)
        if marks is not None:
            marks.written.append(AttentionState(k, v))
        y, ring = ops.local_attention(q, k, v, window, state)
        return self.o_proj(y.flatten(-2)), AttentionState(*ring)

    def follow(
        self, x: Tensor, steps: Sequence[Step], state: AttentionState, trail: Trail, number: int
    ) -> Tensor:
        """Read a call's tokens x (n, 1, D) step by step; change the state and write the trail.

        number: of this layer among those that attend.
        """
        q, k, v = self._projected(x)
        y = torch.empty_like(q)
        for step in steps:
            assert step.window is not None and step.rope is not None
            slots = step.position[:, 0] % step.window.size
            if step.kept is not None:
                trail.k[number].index_copy_(0, step.kept, state.k[step.rows, slots])
                trail.v[number].index_copy_(0, step.kept, state.v[step.rows, slots])
            query, key = (ops.apply_rope(each[step.tokens], step.rope) for each in (q, k))
            value, ring = v[step.tokens], (state.k[step.rows], state.v[step.rows])
            y[step.tokens], _ = ops.local_attention(query, key, value, step.window, ring)
            state.k[step.rows, slots] = key[:, 0]
            state.v[step.rows, slots] = value[:, 0]
        return self.o_proj(y.flatten(-2))

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, T, N, H), keys and values (B, T, K, H) of x, not yet rotated."""
        q, k, v = (
            p(x).unflatten(-1, (-1, self.head_dim)) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        return q, k, v
