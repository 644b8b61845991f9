"""An embedding for training, whose gradient is added in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from griffin.model import Griffin
from griffin.model.layers import Embedding


class InPlaceEmbedding(Embedding):
    """Embeddings that add their gradient to `weight.grad`, the rows that were looked up alone.

    torch's makes a dense (V, D) tensor of it, and autograd another where it meets a tied head's.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.weight.requires_grad and torch.is_grad_enabled():
            found: Any = _LookUp.apply(self.weight, input, self.scale)
            return found
        return super().forward(input)


def add_in_place(model: Griffin) -> None:
    """Give a model such an embedding, over the same weights; a packed one stays, it is frozen."""
    before = model.model.embed_tokens
    if not isinstance(before, Embedding):
        return
    with torch.device("meta"):
        after = InPlaceEmbedding(model.config)
    after.weight = before.weight
    model.model.embed_tokens = after


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, scale: float) -> Tensor:
        ctx.weight, ctx.scale = weight, scale
        ctx.save_for_backward(ids)
        return functional.embedding(ids, weight).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides its names
        ctx: Any, *grads: Tensor
    ) -> tuple[None, None, None]:
        weight, (ids,) = ctx.weight, ctx.saved_tensors
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        rows, places = grads[0].reshape(-1, weight.shape[1]), ids.reshape(-1)
        if weight.grad.dtype != torch.float32 == torch.promote_types(rows.dtype, torch.float32):
            # A frequent token's many parts would be lost beside their sum.
            tokens, places = places.unique(return_inverse=True)
            sums = rows.new_zeros((len(tokens), rows.shape[1]), dtype=torch.float32)
            rows, places = sums.index_add_(0, places, rows.float()), tokens
        weight.grad.index_add_(0, places, rows.to(weight.grad.dtype), alpha=ctx.scale)
        return None, None, None
