"""Cross-entropy straight from hidden states: the logits exist only a tile at a time.

For one hidden row h and the head W, with soft cap c (off at 0):
    l = W h,   z = c tanh(l / c),   loss = logsumexp(z) - z[target]
    dloss/dl = (softmax(z) - onehot(target)) * (1 - (z / c)^2)
A tile is some of the vocabulary by some tokens. The forward pass finds each token's logsumexp and
its target's logit; the backward pass computes the logits again and takes the gradients. Where the
whole vocabulary fits one tile, nothing is computed twice: the gradients are taken at once, and the
backward pass only multiplies them. (Not where each token has an upstream gradient of its own and
the head is trained: its gradient is then a sum whose parts are no longer there to be multiplied.)
A frozen head gets no gradient, and none is made room for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from griffin.model import Griffin, Left, State
from griffin.ops.softmax import add_to_sums, to_slopes
from griffin.train.data.rows import TrainBatch

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
    *,
    in_place: bool = False,
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
    in_place:    add the gradient of a head of several tiles to `weight.grad`, made if it is None,
                 instead of handing autograd a second (V, D) tensor; `weight` is a leaf then.
    Returns (nats, count): a float32 scalar (float64 for float64 input) that gradients flow from
    into hidden and weight, and the int64 number of positions that count. All but the products is
    float32 or wider. Raises ValueError for shapes that do not fit and for targets outside the
    vocabulary.
    """
    flat, wanted, _ = _counted(hidden, weight, targets, mask)
    options = soft_cap, dtype or hidden.dtype, tile, vocab_block, in_place
    nats = _nats(flat, weight, wanted, True, *options)
    return nats, torch.tensor(wanted.numel())


def token_nats(
    hidden: Tensor,
    weight: Tensor,
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
    options = soft_cap, dtype or hidden.dtype, tile, vocab_block, in_place
    nats = _nats(flat, weight, wanted, False, *options)
    if kept is not None:
        nats = nats.new_zeros(targets.numel()).index_copy(0, kept, nats)
    return nats.reshape(targets.shape)


def _counted(
    hidden: Tensor, weight: Tensor, targets: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return hidden states (N, D) and targets (N) of the positions that count, and their places.

    The places are None where all of them do.
    """
    if hidden.shape[:-1] != targets.shape or hidden.shape[-1] != weight.shape[-1]:
        raise ValueError(
            f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)} and targets"
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
    if wanted.numel() and (int(wanted.min()) < 0 or int(wanted.max()) >= weight.shape[0]):
        raise ValueError(
            f"targets must lie in [0, {weight.shape[0]}), found {int(wanted.min())} to"
            f" {int(wanted.max())}"
        )
    return flat, wanted, kept


def _nats(hidden: Tensor, weight: Tensor, targets: Tensor, summed: bool, *options: Any) -> Tensor:
    training = torch.is_grad_enabled()
    found: Any = _CrossEntropy.apply(hidden, weight, targets, summed, training, *options)
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
    under autocast over float32 weights. in_place: as for `chunked_cross_entropy`. state: what was
    read before the rows, where they go on; nothing if omitted. left: as for `Griffin.trunk`.
    """
    with torch.autocast(model.device.type, dtype, enabled=dtype.itemsize < 4):
        hidden, after = model.trunk(batch.tokens, state, batch.segment_pos, left=left)
    cap, head = model.config.logits_soft_cap, model.head_weight
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
        weight: Tensor,
        targets: Tensor,
        summed: bool,
        training: bool,
        soft_cap: float,
        dtype: torch.dtype,
        tile: int,
        vocab_block: int,
        in_place: bool,
    ) -> Tensor:
        columns = max(1, min(weight.shape[0], vocab_block, tile))
        ctx.options = (soft_cap, dtype, max(1, tile // columns), columns)
        tiles = _Tiles(hidden, weight, targets, *ctx.options)
        total = torch.full(targets.shape, float("-inf"), dtype=tiles.wide, device=hidden.device)
        right = torch.zeros_like(total)
        needs = ctx.needs_input_grad
        at_once = training and columns == weight.shape[0] and (summed or not needs[1])
        gradients = tiles.zeros(*needs[:2]) if at_once else ()
        for place, part, block, head in tiles.each():
            logits, column = tiles.logits(block, head), targets[place] - part.start
            add_to_sums(logits, column, total[place], right[place])
            if at_once:
                slope = to_slopes(logits, column, total[place], soft_cap, 1.0)
                tiles.add(gradients, place, part, slope, block, head)
        ctx.save_for_backward(hidden, weight, targets, total, *gradients)
        ctx.in_place = weight if in_place and needs[1] else None
        nats = total - right
        return nats.sum() if summed else nats

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides its names
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, total, *gradients = ctx.saved_tensors
        each = grads[0].reshape(-1, 1)  # (1, 1) of a sum, (N, 1) of nats
        if gradients:
            gradients = [None if part is None else part * each for part in gradients]
        else:
            tiles, into = _Tiles(hidden, weight, targets, *ctx.options), ctx.in_place
            needs = ctx.needs_input_grad
            gradients = list(tiles.zeros(needs[0], needs[1] and into is None))
            if into is not None:
                if into.grad is None:
                    into.grad = torch.zeros_like(into)
                gradients[1] = into.grad
            factor = float(each) if grads[0].dim() == 0 else 1.0
            for place, part, block, head in tiles.each():
                logits, column = tiles.logits(block, head), targets[place] - part.start
                slope = to_slopes(logits, column, total[place], tiles.soft_cap, factor)
                if grads[0].dim():
                    slope.mul_(each[place])
                tiles.add(gradients, place, part, slope, block, head)
            if into is not None:
                gradients[1] = None  # autograd has nothing to add
        inputs = (
            None if part is None else part.to(given.dtype)
            for part, given in zip(gradients, (hidden, weight), strict=True)
        )
        return *inputs, *[None] * 8


class _Tiles:
    """The tiles of one cross-entropy: `rows` tokens by `columns` of the vocabulary."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        soft_cap: float,
        dtype: torch.dtype,
        rows: int,
        columns: int,
    ) -> None:
        self.hidden, self.weight = hidden.detach(), weight.detach()
        self.soft_cap, self.dtype, self.rows, self.columns = soft_cap, dtype, rows, columns
        self.wide = torch.promote_types(hidden.dtype, torch.float32)

    def each(self) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        """Yield which tokens and which of the vocabulary a tile is of, and both in `dtype`."""
        hidden = self.hidden.to(self.dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            for part in _blocks(self.weight.shape[0], self.columns):
                head = self.weight[part].to(self.dtype)
                for place in _blocks(hidden.shape[0], self.rows):
                    yield place, part, hidden[place], head

    def logits(self, block: Tensor, head: Tensor) -> Tensor:
        """Return a tile's capped logits."""
        logits = (block @ head.T).to(self.wide)
        if self.soft_cap:
            logits.div_(self.soft_cap).tanh_().mul_(self.soft_cap)
        return logits

    def zeros(self, hidden: bool, weight: bool) -> tuple[Tensor | None, Tensor | None]:
        """Return zeros for the gradients that are wanted."""
        return (
            torch.zeros_like(self.hidden, dtype=self.wide) if hidden else None,
            torch.zeros_like(self.weight, dtype=self.wide) if weight else None,
        )

    def add(
        self,
        gradients: Sequence[Tensor | None],
        place: slice,
        part: slice,
        slope: Tensor,
        block: Tensor,
        head: Tensor,
    ) -> None:
        """Add what a tile gives to the gradients of hidden states and head."""
        slope = slope.to(self.dtype)
        products = ((place, slope, head), (part, slope.T, block))
        for gradient, (rows, one, other) in zip(gradients, products, strict=True):
            if gradient is not None and gradient.dtype == self.dtype:
                gradient[rows].addmm_(one, other)
            elif gradient is not None:
                gradient[rows] += one @ other


def _blocks(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]
