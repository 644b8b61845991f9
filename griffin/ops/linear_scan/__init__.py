"""The linear recurrence h[t] = a[t] h[t-1] + x[t]."""

from __future__ import annotations

from torch import Tensor

from griffin.ops.dispatch import implementation


def linear_scan(x: Tensor, a: Tensor, h0: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Solve h[t] = a[t] * h[t-1] + x[t] along time.

    x, a: (B, T, E). A zero in `a` forgets everything before it: that is how documents are
          separated.
    h0:   (B, E) float32, zeros if omitted.
    Returns every h, (B, T, E) in x.dtype, and the last one, (B, E) in float32 (float64 for float64
    inputs). All implementations accumulate in float32 or wider. Raises ValueError for shapes that
    do not match. Griffin (arXiv:2402.19427), section 2.4.
    """
    if x.dim() != 3 or x.shape != a.shape or x.shape[1] == 0:
        raise ValueError(
            f"x and a must be equal (B, T, E) with T > 0, not {tuple(x.shape)}, {tuple(a.shape)}"
        )
    if h0 is not None and h0.shape != (x.shape[0], x.shape[2]):
        raise ValueError(f"h0 must be (B, E) = {(x.shape[0], x.shape[2])}, not {tuple(h0.shape)}")
    return implementation("linear_scan", x, a, h0)(x, a, h0)
