"""The next token of each row, drawn on the device that the logits lie on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from griffin.ops.dispatch import implementation
from griffin.ops.live import check_live

# What `fault` says: fine; the logits hold NaN or nothing finite; nothing may be chosen.
FINE, NOT_FINITE, NOTHING_ALLOWED = range(3)


class Draw(NamedTuple):
    """How each of R rows chooses, on the logits' device: of SamplingParams what a step looks at.

    What differs from row to row and is as long as the vocabulary lies in tables of P places, the
    same for all rows that name it; a row without one names -1.
    """

    uniform: Tensor  # (R,) float64 in [0, 1): one a token, from the row's own generator
    temperature: Tensor  # (R,) float32; 0 takes the most probable token
    top_k: Tensor  # (R,) int32; 0 keeps all
    top_p: Tensor  # (R,) float64; 1 keeps all
    min_p: Tensor  # (R,) float64, temperature * log(min_p); -inf keeps all
    repetition: Tensor  # (R,) float32; 1 changes nothing
    presence: Tensor  # (R,) float32
    frequency: Tensor  # (R,) float32
    places: Tensor  # (4, R) int32: of each row the place in counts, bias, masks, and its ends'
    counts: Tensor  # (P, V) int32: twice how often a token was chosen, plus 1 if the prompt has it
    bias: Tensor  # (P, V) float32, added to logits; -inf for what is suppressed
    masks: Tensor  # (P, ceil(V / 32)) int32: bit i % 32 of word i / 32 for token i, lowest first


class DrawnTokens(NamedTuple):
    """What R rows chose."""

    token: Tensor  # (R,) int64; 0 where there is a fault
    logprob: Tensor  # (R,) float32, of the model's own distribution
    fault: Tensor  # (R,) int32: FINE, NOT_FINITE or NOTHING_ALLOWED


def draw_tokens(
    logits: Tensor, draw: Draw, live: Tensor | None = None, out: DrawnTokens | None = None
) -> DrawnTokens:
    """Choose a token for each row as `griffin.sampling.Sampler` does, and count it.

    logits: (R, V) float32, left as they are.
    draw:   how. A row's mask marks what may be chosen; its ends (a mask too) are kept back as long
            as anything else may be. `counts` of the rows that have some are changed in place: two
            rows must not share a place there.
    live:   (1,) int32: rows from there on choose nothing (`few_rows`).
    out:    where to write what was chosen; new tensors if omitted.
    Ties go to the lowest id, masses are summed in float64, and nothing is waited for; on a GPU it
    is four launches. Raises ValueError for shapes and types that do not match.
    """
    if logits.dim() != 2 or not logits.numel() or logits.dtype != torch.float32:
        raise ValueError(f"logits must be (R, V) float32, not {tuple(logits.shape)} {logits.dtype}")
    rows, size = logits.shape
    if out is None:
        types = (torch.int64, torch.float32, torch.int32)
        out = DrawnTokens(*(logits.new_empty(rows, dtype=dtype) for dtype in types))
    for name, t in (draw._asdict() | out._asdict()).items():
        shape, dtype = _expected(name, rows, size, t)
        if t.shape != shape or t.dtype != dtype or not t.is_contiguous():
            raise ValueError(f"{name} must be {shape} {dtype}, not {tuple(t.shape)} {t.dtype}")
    check_live(live)
    implementation("draw_tokens", logits, *draw, live, *out)(logits, draw, live, out)
    return out


_TYPES = dict.fromkeys(("uniform", "top_p", "min_p"), torch.float64) | {"token": torch.int64}
_WHOLE = ("top_k", "places", "counts", "masks", "fault")


def _expected(name: str, rows: int, size: int, t: Tensor) -> tuple[tuple[int, ...], torch.dtype]:
    dtype = torch.int32 if name in _WHOLE else _TYPES.get(name, torch.float32)
    if name in ("counts", "bias", "masks"):
        return (t.shape[0] if t.dim() else 0, -(-size // 32) if name == "masks" else size), dtype
    return (4, rows) if name == "places" else (rows,), dtype
