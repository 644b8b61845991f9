"""What many rows' samplers ask for, as the tensors that one draw on a device takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from griffin.sampling.params import SamplingParams

# Of SamplingParams, a row each: field, type, and what stands for a parameter.
ROW_TYPES = {
    "temperature": torch.float32,
    "top_k": torch.int32,
    "top_p": torch.float64,
    "min_p": torch.float64,
    "repetition": torch.float32,
    "presence": torch.float32,
    "frequency": torch.float32,
}


def row_values(params: SamplingParams) -> dict[str, float | int]:
    """Return what a draw looks at in each step, by the names of `griffin.ops.Draw`."""
    least = params.temperature * math.log(params.min_p) if params.min_p else -math.inf
    return {
        "temperature": params.temperature,
        "top_k": params.top_k,
        "top_p": params.top_p,
        "min_p": least,
        "repetition": params.repetition_penalty,
        "presence": params.presence_penalty,
        "frequency": params.frequency_penalty,
    }


def row_tensors(params: Sequence[SamplingParams]) -> dict[str, Tensor]:
    """Return the values of some rows, each a tensor on the CPU."""
    values = [row_values(each) for each in params]
    return {
        name: torch.tensor([each[name] for each in values], dtype=dtype)
        for name, dtype in ROW_TYPES.items()
    }


def counts_before(params: SamplingParams, prompt: Tensor) -> Tensor | None:
    """Return a row's counts before its first token, (V,) int32; None if it looks at none.

    prompt: (V,) bool, which tokens the prompt has. Twice how often a token was chosen, plus 1 if
    the prompt has it and a repetition penalty looks at that.
    """
    penalty = params.repetition_penalty != 1
    if not (penalty or params.presence_penalty or params.frequency_penalty):
        return None
    return prompt.to(torch.int32) if penalty else torch.zeros(prompt.shape, dtype=torch.int32)


def bias_of(params: SamplingParams, vocab_size: int) -> Tensor | None:
    """Return what is added to a row's logits, (V,) float32; None if nothing is."""
    if not params.logit_bias:
        return None
    bias = torch.zeros(vocab_size)
    ids: Any = list(params.logit_bias)
    bias[ids] = torch.tensor(list(params.logit_bias.values()))
    return bias


def mask_of(params: SamplingParams, vocab_size: int, first: bool) -> Tensor | None:
    """Return which tokens a row may choose, (V,) bool; None if any.

    first: it is the answer's first token.
    """
    never = {*params.suppress_ids, *(params.begin_suppress_ids if first else ())}
    if params.allowed_ids is None and not never:
        return None
    mask = torch.full((vocab_size,), params.allowed_ids is None)
    mask[list(params.allowed_ids or ())] = True
    mask[list(never)] = False
    return mask


def as_bits(mask: Tensor) -> Tensor:
    """Return (V,) bool on the CPU as (ceil(V / 32),) int32: bit i % 32 of word i / 32 for
    token i."""
    bits = np.packbits(mask.numpy(), bitorder="little")
    return torch.from_numpy(np.pad(bits, (0, -len(bits) % 4)).view("<i4"))
