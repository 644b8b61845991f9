"""Whether a call can read its tokens: told before it, or, on a device, by its values."""

from __future__ import annotations

import torch
from torch import Tensor

from griffin.ops.positions import check_following, out_of_order


def looks_first(device: torch.device) -> bool:
    """Return whether tokens are looked at before they are read: where nobody has to wait."""
    return device.type in ("cpu", "meta")


def check_ids(tokens: Tensor, vocab_size: int) -> None:
    """Raise ValueError for the first id of tokens (B, T) that is outside the vocabulary."""
    if tokens.is_meta:
        return
    # A step's one token is looked at in less time.
    one = tokens.numel() == 1 and not torch.compiler.is_compiling()
    if one and 0 <= tokens.item() < vocab_size:
        return
    bad = (tokens < 0) | (tokens >= vocab_size)
    if bad.any():
        row, at = (int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"token {int(tokens[row, at])} at row {row}, place {at} is outside the"
            f" vocabulary of {vocab_size}"
        )


def check_positions(tokens: Tensor, segment_pos: Tensor, pos: Tensor | None) -> None:
    """Raise ValueError for positions (B, T) that are not those of tokens behind pos (B,)."""
    if segment_pos.shape != tokens.shape or segment_pos.dtype != torch.int64:
        raise ValueError(
            f"segment_pos must be int64 {tuple(tokens.shape)}, not {segment_pos.dtype} "
            f"{tuple(segment_pos.shape)}"
        )
    if segment_pos.device != tokens.device:
        raise ValueError(
            f"segment_pos lies on {segment_pos.device}, the tokens on {tokens.device}; they must be"
            " on one device"
        )
    check_following(segment_pos, pos)


def readable(
    tokens: Tensor, segment_pos: Tensor | None, pos: Tensor | None, vocab_size: int
) -> tuple[Tensor, Tensor]:
    """Return tokens that are all in the vocabulary, and which of them were not to be read, (B, T).

    Without waiting for the device that they lie on. segment_pos: their positions where they were
    given; pos: (B,), tokens of each row's document before them.
    """
    held = tokens.clamp(0, vocab_size - 1)
    marred = held != tokens
    if segment_pos is not None:
        marred = marred | out_of_order(segment_pos, pos)
    return held, marred
