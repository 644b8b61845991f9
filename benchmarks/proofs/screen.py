"""Screen: how far a choice behind a screened head is from one behind the whole head.

A model reads what its recipe holds out, and at some positions of each file both heads say what
comes next: whether the best token is the same, the divergence of all that the screen says, with two
bits and with three, from the whole head's (KL, in nats), and, for ways to choose, the distance
between the distributions that are drawn from (total variation: the share of draws that cannot be
the same).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.proofs.held_out import held_out_ids, read_recipe
from griffin import checkpoints
from griffin.engine.score import hidden_pieces
from griffin.loading import load
from griffin.model.screen import unembed_best
from griffin.sampling import SamplingParams, support
from griffin.sampling.filters import weights_of

CHOICES: dict[str, dict[str, Any]] = {
    "temperature 1": {},
    "temperature 0.7": {"temperature": 0.7},
    "top_p 0.95": {"top_p": 0.95},
    "temperature 0.7, top_p 0.95": {"temperature": 0.7, "top_p": 0.95},
    "top_k 50": {"top_k": 50},
    "min_p 0.05": {"min_p": 0.05},
    "temperature 0.7, top_p 0.95, min_p 0.05": {"temperature": 0.7, "top_p": 0.95, "min_p": 0.05},
}
_EVERY = 8  # position of a file is looked at


@torch.no_grad()
def compare(
    out: Path, griffin: str, recipe: str, tokens: int, say: Callable[[str], object]
) -> dict[str, Any]:
    """Return what was found at about `tokens` positions, and write it to out/results.json."""
    quantized = checkpoints.open(griffin).quantization is not None
    llm = load(griffin, quantize=None if quantized else "int8", screen=True)
    model, sums, seen = llm.model, defaultdict[str, float](float), 0
    assert model.screen is not None
    texts = held_out_ids(read_recipe(recipe), llm.tokenizer)
    length = max(_EVERY, tokens * _EVERY // len(texts))
    for number, text in enumerate(texts):
        for _, hidden in hidden_pieces(model, text[: length + 1]):
            some = hidden[_EVERY - 1 :: _EVERY]
            two, three = unembed_best(model, some, 2), unembed_best(model, some, 3)
            for full, best, mass in zip(model.unembed(some), two, three, strict=True):
                seen += 1
                sums["same best"] += float(full.argmax() == best.argmax())
                sums["KL of two bits"] += divergence(full, best)
                sums["KL of three bits"] += divergence(full, mass)
                for name, fields in CHOICES.items():
                    params = SamplingParams(**fields)
                    served = best if params.looks_at == "largest" else mass
                    apart = drawn(full, params) - drawn(served, params)
                    sums[name] += float(apart.abs().sum()) / 2
        say(f"{number + 1} of {len(texts)} files, {seen:,} positions")
    results = {
        "positions": seen,
        "panels": list(model.screen.panels.values()),
        "of": len(model.screen.weight_packed),
        "means": {name: total / seen for name, total in sums.items()},
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    return results


def divergence(full: Tensor, other: Tensor) -> float:
    """Return how far what some logits (V,) say is from what the whole head says, in nats."""
    logs, others = full.log_softmax(0), other.log_softmax(0)
    return float((logs.exp() * (logs - others)).sum())


def drawn(logits: Tensor, params: SamplingParams) -> Tensor:
    """Return the probabilities (V,) that a sampler of these parameters draws from."""
    ids, best = support(logits, params), float(logits.max())
    ids = torch.arange(len(logits)) if ids is None else ids
    weights = weights_of(logits[ids], best, params.temperature).double()
    return torch.zeros(len(logits), dtype=torch.float64).index_copy_(
        0, ids, weights / weights.sum()
    )


def table(results: dict[str, Any]) -> str:
    """Return the results in lines."""
    where = "{positions:,} positions, {panels} of {of} panels read whole".format_map(results)
    means = "\n".join(f"{mean:9.5f}  {name}" for name, mean in results["means"].items())
    return f"{where}\n{means}"
