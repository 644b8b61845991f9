"""The RG-LRU's arithmetic in Triton, for whichever kernel needs it: from gates to a and its input.

Special functions are what a GPU has least of: five a value here (two exponentials and one
reciprocal for both sigmoids, the exponential of log a, the square root).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rate_of(param):
    """Return softplus(param), right to rounding also where it is 1e-7: log(1 + e) by a series."""
    param = param.to(tl.float32)
    e = tl.exp(-tl.abs(param))
    s = e / (2.0 + e)
    q = s * s
    series = 1.0 / 3 + q * (0.2 + q * (1.0 / 7 + q * (1.0 / 9 + q * (1.0 / 11 + q * (1.0 / 13)))))
    return tl.maximum(param, 0.0) + 2.0 * s * (1.0 + q * (series + q * q * q * q * q * q / 15))


@triton.jit
def sigmoids(one, other):
    """Return the sigmoids of two gates; gates count as -40 at least."""
    e_one = tl.exp(-tl.maximum(one, -40.0, propagate_nan=tl.PropagateNan.ALL))
    e_other = tl.exp(-tl.maximum(other, -40.0, propagate_nan=tl.PropagateNan.ALL))
    both = 1.0 / ((1.0 + e_one) * (1.0 + e_other))
    return both * (1.0 + e_other), both * (1.0 + e_one)


@triton.jit
def decay_of(r, rate):
    """Return a and 1 - a^2 of recurrence gates after their sigmoid; the latter by a series near 0,
    where a formed first would leave rounding alone."""
    log_a = -8.0 * r * rate
    a = tl.exp(log_a)
    e = 2.0 * log_a
    series = e * (1.0 / 6 + e * (1.0 / 24 + e * (1.0 / 120 + e * (1.0 / 720))))
    less = tl.where(e > -0.25, -e * (1.0 + e * (0.5 + series)), 1.0 - a * a)
    return a, less


@triton.jit
def placed(a, scale, position):
    """Return a and scale as a position has them: 0 and 1 where a document starts, 1 and 0 at a
    pad."""
    a = tl.where(position == 0, 0.0, tl.where(position < 0, 1.0, a))
    return a, tl.where(position == 0, 1.0, tl.where(position < 0, 0.0, scale))
