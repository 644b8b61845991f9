"""A softmax whose keys come tile after tile: what attention on a GPU weighs each tile with."""

# Of Triton's language the checker knows not what a kernel's variables are.
# pyright: reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def weigh(score, seen, most, mass):
    """Return what keys weigh where they are seen, by scores (Q, L), both float32.

    most, mass (Q,): the largest score of earlier keys and what they weigh together; -inf and 0 at
    first. Returns the weights (Q, L), by what (Q,) earlier ones count less, and both of all keys.
    """
    score = tl.where(seen, score, float("-inf"))
    above = tl.maximum(most, tl.max(score, 1))
    # Nothing was seen yet: the difference of two infinities would be no number.
    base = tl.where(above == float("-inf"), 0.0, above)
    weight = tl.exp(score - base[:, None])
    less = tl.exp(most - base)
    return weight, less, above, mass * less + tl.sum(weight, 1)
