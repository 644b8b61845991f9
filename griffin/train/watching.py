"""What is watched while a run goes on: spikes of the loss, memory, and what a prompt becomes."""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from typing import Any

import torch

from griffin.model import Griffin, State
from griffin.text import Tokenizer
from griffin.train.checkpoint import RunProgress

_DEVIATIONS = 6.0  # from the running mean; more is a spike
_STEPS = 20  # before anything is called one
_MEAN, _VARIANCE = 0.1, 0.02  # a step's weight: ten steps tell where the loss is, fifty its noise


def watch(
    entry: dict[str, Any],
    progress: RunProgress,
    device: torch.device,
    matrix_limit: float | None,
    say: Callable[[str], object],
) -> None:
    """Put into a step's log entry what is watched, and say what stands out.

    matrix_limit: tokens/s if matrix products were all of a step, where it is known.
    """
    entry["peak_bytes"] = peak_bytes(device)
    if matrix_limit is not None:
        entry["matrix_share"] = entry["tokens_per_second"] / matrix_limit
    loss = entry["loss"]
    if loss is not None and (found := spike(loss, progress)) is not None:
        entry["spike"] = found
        say(
            f"step {entry['step']}: the loss is {loss:.3f}, {found:.0f} deviations above its"
            " running mean"
        )


def spike(loss: float, progress: RunProgress) -> float | None:
    """Take a step's loss into the running mean; return its deviations from it if it is a spike.

    progress: holds mean and variance, so a resumed run judges as one that never stopped. Of a spike
    only as much counts as is none, lest it hides the next.
    """
    steps = progress.step - progress.without_targets
    mean, variance = progress.loss_mean if steps > 1 else loss, progress.loss_variance
    deviation = variance**0.5
    found = None
    if steps > _STEPS and deviation and loss > mean + _DEVIATIONS * deviation:
        found = (loss - mean) / deviation
        loss = mean + _DEVIATIONS * deviation
    youth, apart = 1 / max(steps, 1), loss - mean
    progress.loss_mean = mean + max(_MEAN, youth) * apart
    progress.loss_variance = variance + max(_VARIANCE, youth) * (apart**2 - variance)
    return found


def peak_bytes(device: torch.device) -> int:
    """Return the most memory that this process has had: on its GPU, or resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@torch.no_grad()
def sample(
    model: Griffin,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    tokens: int,
    dtype: torch.dtype = torch.float32,
    begins: State | None = None,
    check: Callable[[], object] = lambda: None,
) -> list[dict[str, str]]:
    """Continue each prompt by its likeliest tokens, `tokens` at most, up to the end of the text.

    dtype: of the products, as in training. begins: a state of one row that stands for BOS; then an
    empty prompt is left out. check: called before each token; what it raises ends the work.
    Returns a prompt and its continuation each.
    """
    found: list[dict[str, str]] = []
    for prompt in prompts:
        ids, made = tokenizer.encode(prompt)[begins is not None :], list[int]()
        state = begins
        while ids and len(made) < tokens:
            check()
            given = torch.tensor([made[-1:] or ids], device=model.device)
            with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
                hidden, state = model.trunk(given, state)
                logits = model.unembed(hidden[0, -1])[: tokenizer.vocab_size]
            likeliest = int(logits.argmax())
            if likeliest == tokenizer.eos_id:
                break
            made.append(likeliest)
        if ids:
            found.append({"prompt": prompt, "text": tokenizer.decode(made)})
    return found
