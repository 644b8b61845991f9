"""Positions as ops take them: whole numbers, one a token, pads before a row's first."""

from __future__ import annotations

import torch
from torch import Tensor

# float64 holds every whole number up to here, and angles are formed in it. At a million tokens a
# second it is reached after 285 years.
MOST_POSITIONS = 1 << 53
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def take_positions(segment_pos: Tensor, x: Tensor) -> Tensor:
    """Return the positions (B, T) of the tokens of x (B, T, ...) as int64.

    Raises ValueError for another shape or type, for no token at all, and for pads behind a token
    (looked for on the CPU, where looking does not wait for anything).
    """
    if segment_pos.shape != x.shape[:2]:
        raise ValueError(
            f"segment_pos must be (B, T) = {tuple(x.shape[:2])}, not {tuple(segment_pos.shape)}"
        )
    if segment_pos.shape[1] == 0:
        raise ValueError(f"x {tuple(x.shape)} has no token; T must be at least 1")
    if segment_pos.dtype is not torch.int64:
        if segment_pos.dtype not in WHOLE:
            raise ValueError(f"segment_pos must be whole numbers (int64), not {segment_pos.dtype}")
        segment_pos = segment_pos.long()
    if segment_pos.shape[1] > 1 and _can_look(segment_pos) and int(segment_pos.min()) < 0:
        pads = segment_pos < 0
        late = pads[:, 1:] & ~pads[:, :-1]
        if late.any():
            row, at = (int(i) for i in late.nonzero()[0])
            raise ValueError(
                f"segment_pos[{row}, {at + 1}] is {int(segment_pos[row, at + 1])}, behind a token;"
                " negative values (left padding) stand only before a row's first token"
            )
    return segment_pos


def check_following(segment_pos: Tensor, before: Tensor | None) -> None:
    """Raise ValueError for positions that do not follow from those before (checked on the CPU).

    segment_pos: (B, T) int64.
    before:      (B,) int64, tokens of the document so far; None: none.
    """
    if not _can_look(segment_pos) or not _can_look(before):
        return
    expected, wrong = _following(segment_pos, before)
    if wrong.any():
        row, at = (int(i) for i in wrong.nonzero()[0])
        raise ValueError(
            f"segment_pos[{row}, {at}] is {int(segment_pos[row, at])}; after what came before only"
            f" 0 or {int(expected[row, at])} can stand there (negative values only before a row's"
            " first token)"
        )


def out_of_order(segment_pos: Tensor, before: Tensor | None) -> Tensor:
    """Return which positions do not follow from those before, (B, T) bool: on any device, without
    waiting for it. The arguments are those of `check_following`."""
    return _following(segment_pos, before)[1]


def _following(segment_pos: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the position that could stand at each place but 0, and whether another does."""
    begin = segment_pos.new_zeros(segment_pos.shape[0], 1) if before is None else before[:, None]
    expected = torch.where(segment_pos < 0, begin, segment_pos + 1)
    expected = torch.cat([begin, expected[:, :-1]], dim=1)
    wrong = (segment_pos > 0) & (segment_pos != expected)
    pads = segment_pos < 0
    wrong[:, 1:] |= pads[:, 1:] & ~pads[:, :-1]
    return expected, wrong


def check_reach(pos: Tensor, steps: int, what: str) -> None:
    """Raise ValueError unless `steps` tokens can follow positions pos (B,) (checked on the CPU)."""
    if not _can_look(pos):
        return
    values = pos.tolist()
    if values and not (min(values) >= 0 and max(values) + steps <= MOST_POSITIONS):
        bad = next(n for n in values if not 0 <= n <= MOST_POSITIONS - steps)
        raise ValueError(
            f"{what} is {bad}; with the {steps} tokens of this call it must lie between 0 and"
            f" {MOST_POSITIONS} (2^53)"
        )


def _can_look(t: Tensor | None) -> bool:
    return t is None or (t.numel() > 0 and t.is_cpu and not torch.compiler.is_compiling())
