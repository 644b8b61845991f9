"""Cross-entropy straight from hidden states: the logits exist only a tile at a time.

For one hidden row h and the head W, with soft cap c (off at 0):
    l = W h,   z = c tanh(l / c),   loss = logsumexp(z) - z[target]
    dloss/dl = (softmax(z) - onehot(target)) * (1 - (z / c)^2)
A tile is some of the vocabulary by some tokens. The forward pass finds each token's logsumexp and
its target's logit; the backward pass computes the logits again and takes the gradients. Nothing is
computed twice where the gradients can be taken at once and the backward pass only multiplies them:
with a frozen head, which gets no gradient and no room for one, and for the sum of the nats where
the whole vocabulary fits one tile.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from griffin.model import Griffin, Left, State
from griffin.ops import Packed
from griffin.ops.softmax import add_to_sums, to_slopes
from griffin.train.data.rows import TrainBatch
from griffin.train.tiles import Tiles, head_shape

# Entries in a tile of logits: 8 MB in float32. Smaller tiles cost more passes over the head, larger
# ones leave the cache; between half and four times this, speed is the same.
TILE = 2_097_152
VOCAB_BLOCK = 8192


def chunked_cross_entropy(
    hidden: Tensor,
    weight: Tensor | Packed,
    targets: Tensor,
    mask: Tensor | None = None,
    soft_cap: float = 0.0,
    dtype: torch.dtype | None = None,
    tile: int = TILE,
    vocab_block: int = VOCAB_BLOCK,
    *,
    in_place: bool = False,
) -> tuple[Tensor, Tensor]:
    """Sum the negative log-likelihood of targets, in nats, without ever making a (..., V) tensor.

    hidden:      (..., D) after the final norm.
    weight:      (V, D), the tied embedding or `lm_head.weight`, or it packed (`Griffin.head`).
    targets:     (...) int64 in [0, V).
    mask:        (...) bool, False where a position does not count.
    soft_cap:    c in c tanh(l / c); 0 is off.
    dtype:       of the matrix products; default hidden's. With a packed head of those of the
                 gradient alone: its logits are the engine's.
    tile:        the most entries of logits that exist at a time.
    vocab_block: the most columns of one tile.
    in_place:    add the gradient of a trained head of several tiles to `weight.grad`, made if it is
                 None, instead of handing autograd a second (V, D) tensor; `weight` is a leaf then.
    Returns (nats, count): a float32 scalar (float64 for float64 input) that gradients flow from
    into hidden and weight, and the int64 number of positions that count. All but the products is
    float32 or wider. Raises ValueError for shapes that do not fit and for targets outside the
    vocabulary.
    """
    flat, wanted, _ = _counted(hidden, weight, targets, mask)
    options = soft_cap, dtype or hidden.dtype, tile, vocab_block
    nats = _nats(flat, weight, wanted, True, in_place, *options)
    return nats, torch.tensor(wanted.numel())


def token_nats(
    hidden: Tensor,
    weight: Tensor | Packed,
    targets: Tensor,
    mask: Tensor | None = None,
    soft_cap: float = 0.0,
    dtype: torch.dtype | None = None,
    tile: int = TILE,
    vocab_block: int = VOCAB_BLOCK,
    *,
    in_place: bool = False,
) -> Tensor:
    """Return the negative log-likelihood of each target, in nats.

    Arguments as for `chunked_cross_entropy`. Returns a float32 tensor (float64 for float64 input)
    of targets' shape, 0 where the mask is False; gradients of each flow into hidden and weight.
    Raises ValueError as `chunked_cross_entropy` does.
    """
    flat, wanted, kept = _counted(hidden, weight, targets, mask)
    options = soft_cap, dtype or hidden.dtype, tile, vocab_block
    nats = _nats(flat, weight, wanted, False, in_place, *options)
    if kept is not None:
        nats = nats.new_zeros(targets.numel()).index_copy(0, kept, nats)
    return nats.reshape(targets.shape)


def _counted(
    hidden: Tensor, head: Tensor | Packed, targets: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return hidden states (N, D) and targets (N) of the positions that count, and their places.

    The places are None where all of them do.
    """
    vocab, width = head_shape(head)
    if hidden.shape[:-1] != targets.shape or hidden.shape[-1] != width:
        raise ValueError(
            f"hidden {tuple(hidden.shape)}, weight {(vocab, width)} and targets"
            f" {tuple(targets.shape)} do not fit: they must be (..., D), (V, D) and (...)"
        )
    flat, wanted, kept = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1), None
    if mask is not None:
        if mask.shape != targets.shape:
            raise ValueError(
                f"mask {tuple(mask.shape)} does not fit targets {tuple(targets.shape)}"
            )
        if not mask.all():
            kept = mask.reshape(-1).nonzero().squeeze(1)
            flat, wanted = flat[kept], wanted[kept]
    if wanted.numel() and (int(wanted.min()) < 0 or int(wanted.max()) >= vocab):
        raise ValueError(
            f"targets must lie in [0, {vocab}), found {int(wanted.min())} to {int(wanted.max())}"
        )
    return flat, wanted, kept


def _nats(
    hidden: Tensor,
    head: Tensor | Packed,
    targets: Tensor,
    summed: bool,
    in_place: bool,
    *options: Any,
) -> Tensor:
    training = torch.is_grad_enabled()
    found: Any = _CrossEntropy.apply(hidden, head, targets, summed, training, in_place, *options)
    return found


def row_nats(
    model: Griffin,
    batch: TrainBatch,
    dtype: torch.dtype = torch.float32,
    *,
    in_place: bool = False,
    state: State | None = None,
    left: Left | None = None,
) -> tuple[Tensor, State]:
    """Return the summed nats of a batch's targets, and the state after its rows.

    Gradients flow from the nats. dtype is that of the matrix products; bfloat16 runs the trunk
    under autocast over float32 weights. A packed model computes what it does when it answers,
    whatever dtype is: then it is that of the head's gradient alone. in_place: as for
    `chunked_cross_entropy`. state: what was read before the rows, where they go on; nothing if
    omitted. left: as for `Griffin.trunk`.
    """
    head = model.head
    narrow = dtype.itemsize < 4 and not isinstance(head, Packed)
    with torch.autocast(model.device.type, dtype, enabled=narrow):
        hidden, after = model.trunk(batch.tokens, state, batch.segment_pos, left=left)
    cap = model.config.logits_soft_cap
    nats, _ = chunked_cross_entropy(
        hidden, head, batch.targets, batch.mask, cap, dtype, in_place=in_place
    )
    return nats, after


class _CrossEntropy(torch.autograd.Function):
    """Of flat hidden states (N, D), a head (V, D) and targets (N): nats (N), or their sum."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor | Packed,
        targets: Tensor,
        summed: bool,
        training: bool,
        in_place: bool,
        *options: Any,
    ) -> Tensor:
        tiles, needs = Tiles(hidden, head, *options), ctx.needs_input_grad
        ctx.options, ctx.frozen = options, not needs[1]
        if training and needs[0] and not needs[1]:
            nats, gradient = _of_frozen(tiles, targets)
            ctx.save_for_backward(hidden.new_empty(0), gradient)
        else:
            total, right = tiles.sums(targets)
            at_once = training and summed and tiles.whole
            gradients = tiles.zeros(*needs[:2]) if at_once else ()
            for place, block, part in tiles.each():
                logits, column = tiles.logits(block, part), targets[place] - part.columns.start
                add_to_sums(logits, column, total[place], right[place])
                if at_once:
                    slope = to_slopes(logits, column, total[place], tiles.soft_cap, 1.0)
                    tiles.add(gradients, place, slope, block, part)
            nats = total - right
            if training and needs[1]:
                ctx.save_for_backward(hidden, head, targets, total, *gradients)
                ctx.in_place = head if in_place else None
        return nats.sum() if summed else nats

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides its names
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        each = grads[0].reshape(-1, 1)  # (1, 1) of a sum, (N, 1) of nats
        if ctx.frozen:
            like, gradient = ctx.saved_tensors
            return (gradient * each).to(like.dtype), *[None] * 9
        hidden, weight, targets, total, *gradients = ctx.saved_tensors
        if gradients:
            gradients = [None if part is None else part * each for part in gradients]
        else:
            tiles, into = Tiles(hidden, weight, *ctx.options), ctx.in_place
            gradients = list(tiles.zeros(ctx.needs_input_grad[0], into is None))
            if into is not None:
                if into.grad is None:
                    into.grad = torch.zeros_like(into)
                gradients[1] = into.grad
            factor = float(each) if grads[0].dim() == 0 else 1.0
            for place, block, part in tiles.each():
                logits, column = tiles.logits(block, part), targets[place] - part.columns.start
                slope = to_slopes(logits, column, total[place], tiles.soft_cap, factor)
                if grads[0].dim():
                    slope.mul_(each[place])
                tiles.add(gradients, place, slope, block, part)
            if into is not None:
                gradients[1] = None  # autograd has nothing to add
        inputs = (
            None if part is None else part.to(given.dtype)
            for part, given in zip(gradients, (hidden, weight), strict=True)
        )
        return *inputs, *[None] * 8


def _of_frozen(tiles: Tiles, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nats (N) of targets and their gradients in the hidden states (N, D), in one pass.

    As attention takes its softmax: what the tiles before gave is brought to the sum that has grown,
    each time. The targets' part comes last.
    """
    total, right = tiles.sums(targets)
    (gradient, _), nowhere = tiles.zeros(True, False), torch.full_like(targets, -1)
    assert gradient is not None
    for place, block, part in tiles.each():
        logits, before = tiles.logits(block, part), total[place].clone()
        column = targets[place] - part.columns.start
        add_to_sums(logits, column, total[place], right[place])
        gradient[place].mul_((before - total[place]).exp_()[:, None])
        slope = to_slopes(logits, nowhere[place], total[place], tiles.soft_cap, 1.0)
        tiles.add((gradient, None), place, slope, block, part)
    factor = right.new_ones(()) if not tiles.soft_cap else 1 - (right / tiles.soft_cap).square()
    gradient.addcmul_(tiles.rows_of(targets), factor.reshape(-1, 1), value=-1)
    return total - right, gradient
