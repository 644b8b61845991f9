"""Cross-entropy straight from hidden states: the logits exist only a tile at a time.

For one hidden row h and the head W, with soft cap c (off at 0):
    l = W h,   z = c tanh(l / c),   loss = logsumexp(z) - z[target]
    dloss/dl = (softmax(z) - onehot(target)) * (1 - (z / c)^2)
A tile is some tokens by some of the vocabulary. For each block of tokens a first sweep over the
vocabulary finds the logsumexp and the target's logit, a second one the gradients, from logits
computed again; where the whole vocabulary fits one tile, its logits are kept between the sweeps
instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from griffin.model import Griffin
from griffin.train.packing import TrainBatch

# Entries in a tile of logits: 8 MB in float32. Smaller tiles cost more passes over the head, larger
# ones leave the cache; between half and four times this, speed is the same.
TILE = 2_097_152
VOCAB_BLOCK = 8192


def chunked_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    soft_cap: float = 0.0,
    dtype: torch.dtype | None = None,
    tile: int = TILE,
    vocab_block: int = VOCAB_BLOCK,
) -> tuple[Tensor, Tensor]:
    """Sum the negative log-likelihood of targets, in nats, without ever making a (..., V) tensor.

    hidden:      (..., D) after the final norm.
    weight:      (V, D), the tied embedding or `lm_head.weight`.
    targets:     (...) int64 in [0, V).
    mask:        (...) bool, False where a position does not count.
    soft_cap:    c in c tanh(l / c); 0 is off.
    dtype:       of the matrix products; default hidden's.
    tile:        the most entries of logits that exist at a time.
    vocab_block: the most columns of one tile.
    Returns (nats, count): a float32 scalar (float64 for float64 input) that gradients flow from
    into hidden and weight, and the int64 number of positions that count. All but the products is
    float32 or wider. Raises ValueError for shapes that do not fit and for targets outside the
    vocabulary.
    """
    if hidden.shape[:-1] != targets.shape or hidden.shape[-1] != weight.shape[-1]:
        raise ValueError(
            f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)} and targets"
            f" {tuple(targets.shape)} do not fit: they must be (..., D), (V, D) and (...)"
        )
    flat, wanted = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    if mask is not None:
        if mask.shape != targets.shape:
            raise ValueError(
                f"mask {tuple(mask.shape)} does not fit targets {tuple(targets.shape)}"
            )
        if not mask.all():
            kept = mask.reshape(-1).nonzero().squeeze(1)
            flat, wanted = flat[kept], wanted[kept]
    if wanted.numel() and (int(wanted.min()) < 0 or int(wanted.max()) >= weight.shape[0]):
        raise ValueError(
            f"targets must lie in [0, {weight.shape[0]}), found {int(wanted.min())} to"
            f" {int(wanted.max())}"
        )
    nats: Any = _CrossEntropy.apply(
        flat,
        weight,
        wanted,
        soft_cap,
        dtype or hidden.dtype,
        tile,
        vocab_block,
        torch.is_grad_enabled(),
    )
    return nats, torch.tensor(wanted.numel())


def row_nats(
    model: Griffin, batch: TrainBatch, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return the summed nats of a batch's targets and how many there are.

    Gradients flow from the nats. dtype is that of the matrix products; bfloat16 runs the trunk
    under autocast over float32 weights.
    """
    with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
        hidden, _ = model.trunk(batch.tokens, segment_pos=batch.segment_pos)
    cap = model.config.logits_soft_cap
    return chunked_cross_entropy(hidden, model.head_weight, batch.targets, batch.mask, cap, dtype)


class _CrossEntropy(torch.autograd.Function):
    """The gradients are made in the forward pass: a sum's gradient is known up to one factor."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        soft_cap: float,
        dtype: torch.dtype,
        tile: int,
        vocab_block: int,
        training: bool,
    ) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        columns = max(1, min(weight.shape[0], vocab_block, tile))
        rows = max(1, tile // columns)
        head = weight.to(dtype)
        nats = torch.zeros((), dtype=wide, device=hidden.device)
        grad_hidden = (
            torch.empty_like(hidden, dtype=wide) if training and ctx.needs_input_grad[0] else None
        )
        grad_weight = (
            torch.zeros_like(weight, dtype=wide) if training and ctx.needs_input_grad[1] else None
        )
        with torch.autocast(hidden.device.type, enabled=False):
            for place in _blocks(hidden.shape[0], rows):
                block, wanted = hidden[place].to(dtype), targets[place]
                total, right, kept = _sweep(block, head, wanted, columns, soft_cap, wide)
                nats += (total - right).sum()
                for part in _blocks(head.shape[0], columns) if training else ():
                    logits = (
                        kept if kept is not None else _logits(block, head[part], soft_cap, wide)
                    )
                    slope = _slope(logits, total, wanted - part.start, soft_cap).to(dtype)
                    if grad_weight is not None:
                        grad_weight[part] += slope.T @ block
                    if grad_hidden is not None and part.start == 0:
                        grad_hidden[place] = slope @ head[part]
                    elif grad_hidden is not None:
                        grad_hidden[place] += slope @ head[part]
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtypes = (hidden.dtype, weight.dtype)
        return nats

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides its names
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        parts = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        inputs = (None if part is None else (part * grads[0]).to(dtype) for part, dtype in parts)
        return *inputs, None, None, None, None, None, None


def _blocks(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def _sweep(
    block: Tensor, head: Tensor, wanted: Tensor, columns: int, soft_cap: float, wide: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return each row's logsumexp and its target's logit, (rows,), and the logits if they are one
    tile."""
    parts = _blocks(head.shape[0], columns)
    total = torch.full(wanted.shape, float("-inf"), dtype=wide, device=block.device)
    right = torch.zeros(wanted.shape, dtype=wide, device=block.device)
    for part in parts:
        logits = _logits(block, head[part], soft_cap, wide)
        total = torch.logaddexp(total, logits.logsumexp(1))
        here, column = _here(logits, wanted - part.start)
        right[here] = logits[here, column]
        if len(parts) == 1:
            return total, right, logits
    return total, right, None


def _logits(block: Tensor, head: Tensor, soft_cap: float, wide: torch.dtype) -> Tensor:
    logits = (block @ head.T).to(wide)
    return logits.div_(soft_cap).tanh_().mul_(soft_cap) if soft_cap else logits


def _here(logits: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows whose target lies in this tile, and its column there."""
    here = ((column >= 0) & (column < logits.shape[1])).nonzero().squeeze(1)
    return here, column[here]


def _slope(logits: Tensor, total: Tensor, column: Tensor, soft_cap: float) -> Tensor:
    """Return dloss/dl of a tile from its capped logits."""
    slope = (logits - total[:, None]).exp_()
    here, there = _here(logits, column)
    slope[here, there] -= 1
    return slope.mul_(1 - (logits / soft_cap).square_()) if soft_cap else slope
