"""What a cross-entropy needs of a tile of logits, in place: their sums, then their gradient."""

from __future__ import annotations

from torch import Tensor

from griffin.ops import kernels
from griffin.ops.dispatch import natively


def add_to_sums(logits: Tensor, column: Tensor, total: Tensor, right: Tensor) -> None:
    """Add a tile's exponentials to `total`, and the target's logit to `right`, where it is in it.

    logits: (N, C), capped. column: (N,) int64, the target's column, out of range where it is in
    another tile. total: (N,) the logarithm of the sum so far. right: (N,), both changed in place.
    """
    if natively(logits, total, right, trains=True) and _float32(logits):
        kernels.call("softmax", logits.dtype, logits.shape, (logits, column, total, right), *_SUMS)
        return
    inside, place = _inside(column, logits)
    total.copy_(total.logaddexp(logits.logsumexp(1)))
    right += logits.gather(1, place[:, None])[:, 0].where(inside, 0.0)


def to_slopes(
    logits: Tensor, column: Tensor, total: Tensor, soft_cap: float, factor: float
) -> Tensor:
    """Turn a tile of capped logits, in place, into the gradient of factor * (total - right).

    That is the gradient in the logits before the cap (0: none), dl = factor * (softmax - onehot) *
    (1 - (logit / cap)^2). Arguments as for `add_to_sums`, after which total is whole.
    """
    if natively(logits, total, trains=True) and _float32(logits):
        options = False, soft_cap, factor
        tensors = logits, column, total, total
        kernels.call("softmax", logits.dtype, logits.shape, tensors, *options)
        return logits
    inside, place = _inside(column, logits)
    slope = (logits - total[:, None]).exp_()
    slope.scatter_add_(1, place[:, None], -inside.to(slope.dtype)[:, None])
    if soft_cap:
        slope.mul_(1 - (logits / soft_cap).square_())
    return logits.copy_(slope.mul_(factor))


_SUMS = (True, 0.0, 0.0)


def _float32(logits: Tensor) -> bool:
    return logits.element_size() == 4


def _inside(column: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return whose target lies in a tile, and its column there, 0 where it does not."""
    inside = (column >= 0) & (column < logits.shape[1])
    return inside, column.where(inside, 0)
