"""Attention to the tokens of a sliding window, with a ring of past keys and values."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from griffin.ops.dispatch import implementation, on_one_device
from griffin.ops.positions import WHOLE, check_following, check_reach, take_positions


class Window(NamedTuple):
    """What a call may attend to and its ring keeps: the same for every layer, made once a call."""

    size: int  # a query sees itself and this many tokens before it
    segment: Tensor  # (B, T) int64  document of each token; 0 is the one the ring belongs to
    pad: Tensor  # (B, T) bool  left padding
    position: Tensor  # (B, T) int64  position in the document
    slot_position: Tensor  # (B, S) int64  position held by each ring slot, negative if none
    source: Tensor  # (B, S) int64  where each slot of the next ring is in [ring, new]; -1: nowhere
    fresh: bool  # the ring holds nothing and need not be read
    runs_on: bool  # every row goes on with the ring's document, without pads
    in_place: bool = False  # the ring was given up: what follows it may be written over it


def plan_window(
    segment_pos: Tensor,
    size: int,
    before: Tensor | None,
    runs_on: bool = False,
    in_place: bool = False,
) -> Window:
    """Lay out the window of a call.

    segment_pos: (B, T) int64; 0 starts a document, negative is left padding, otherwise each token's
                 position is one more than that of the token before it.
    size:        the window; also the number of ring slots S. Position p lives in slot p mod S.
    before:      (B,) int64, tokens of the current document that the ring has seen; None: no ring
                 yet.
    runs_on:     the caller knows that no document starts and no row is padded, which makes decoding
                 cheaper.
    in_place:    the ring is given up; where rows run on it is written over, and returned.
    Raises ValueError for positions that do not follow (looked for on the CPU, unless `runs_on`).
    """
    fresh = before is None
    if segment_pos.dim() != 2 or size < 1:
        raise ValueError(
            f"segment_pos must be (B, T) and size at least 1, not {tuple(segment_pos.shape)} and"
            f" {size}"
        )
    segment_pos = take_positions(segment_pos, segment_pos)
    rows, steps = segment_pos.shape
    if before is None:
        before = segment_pos.new_zeros(rows)
    elif before.shape != (rows,) or before.dtype not in WHOLE:
        raise ValueError(
            f"before must be whole numbers ({rows},), not {tuple(before.shape)} {before.dtype}"
        )
    on_one_device(segment_pos, before)
    before = before.long()
    if not runs_on:
        check_reach(before, steps, "before")
        check_following(segment_pos, before)
    pad = segment_pos < 0
    segment = (segment_pos == 0).cumsum(1)
    slots = torch.arange(size, device=segment_pos.device)
    slot_position = _latest(before[:, None] - 1, slots, size)

    after = torch.where(pad[:, -1], before, segment_pos[:, -1] + 1)
    kept = _latest(after[:, None] - 1, slots, size)
    first_new = torch.where(segment[:, -1] > 0, 0, before)[:, None]
    from_new = size + (steps - 1) - (after[:, None] - 1 - kept)
    source = torch.where(kept >= first_new, from_new, slots.expand(rows, -1))
    source = torch.where(kept >= 0, source, -1)
    parts = segment, pad, segment_pos, slot_position, source
    return Window(size, *parts, fresh, runs_on, in_place and not torch.is_grad_enabled())


def local_attention(
    q: Tensor, k: Tensor, v: Tensor, window: Window, ring: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Attend from each token to itself and the `window.size` tokens before it in its document.

    q:    (B, T, N, H), already rotated and not yet scaled.
    k, v: (B, T, K, H), keys already rotated; N is a multiple of K.
    ring: keys and values (B, S, K, H) of the last S tokens; None only with a window planned without
          one.
    Returns (B, T, N, H) in q.dtype and the next ring, in the ring's dtype. Softmax in float32 or
    wider. Griffin (arXiv:2402.19427), section 2.3; the window counts as in the reference code: size
    + 1 keys.
    Raises ValueError for shapes that do not match, and a window planned for other tokens.
    """
    if (
        q.dim() != 4
        or k.dim() != 4
        or q.shape[:2] != k.shape[:2]
        or k.shape != v.shape
        or q.shape[3] != k.shape[3]
        or not (q.shape[2] and k.shape[2] and k.shape[3])
        or q.shape[2] % k.shape[2]
    ):
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} do not match"
        )
    if not (k.is_floating_point() and v.is_floating_point()):
        raise ValueError(f"k and v must be floating-point tensors, not {k.dtype} and {v.dtype}")
    if (ring is None) != window.fresh:
        raise ValueError("a window planned with `before` needs its ring, and one without has none")
    expected = (k.shape[0], window.size, *k.shape[2:])
    for part in ring or ():
        if part.shape != expected:
            raise ValueError(f"ring must be {expected}, not {tuple(part.shape)}")
    if window.position.shape != q.shape[:2] or not q.shape[1]:
        raise ValueError(
            f"the window is planned for tokens {tuple(window.position.shape)}, q is"
            f" {tuple(q.shape)}; they must be of the same (B, T), with T at least 1"
        )
    run = implementation("local_attention", q, k, v, window.position, *(ring or ()))
    return run(q, k, v, window, ring)


def next_ring(window: Window, k: Tensor, ring: Tensor | None) -> Tensor:
    """Return the ring (B, S, K, H) after the new keys (or values) k (B, T, K, H)."""
    rows, steps = k.shape[:2]
    if ring is None:
        both, source = k, window.source - window.size
    elif window.runs_on and (steps <= window.size or window.in_place):
        k = k[:, -window.size :].to(ring.dtype)
        slots = (window.position[:, -window.size :] % window.size)[:, :, None, None].expand_as(k)
        return ring.scatter_(1, slots, k) if window.in_place else ring.scatter(1, slots, k)
    else:
        both, source = torch.cat([ring, k.to(ring.dtype)], dim=1), window.source
    # Whole tokens are copied; entry by entry it took three times as long.
    first = torch.arange(rows, device=k.device)[:, None] * both.shape[1]
    at = first + source.clamp_min(0)
    kept = both.flatten(0, 1).index_select(0, at.flatten()).unflatten(0, source.shape)
    return kept.masked_fill_((source < 0)[:, :, None, None], 0)


def _latest(last: Tensor, slots: Tensor, size: int) -> Tensor:
    """Return the newest position up to `last` that lives in each slot; negative if there is
    none."""
    return last - (last - slots) % size
