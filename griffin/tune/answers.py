"""What a model answers, before and after: the same few prompts, by the likeliest tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from griffin.llm import LLM
from griffin.model import Griffin, TunedState
from griffin.train.data.prepare import RunData
from griffin.train.data.store import TokenStore

ANSWERS = 5
_TOKENS = 64  # of an answer at most
_BEGINNING = 32  # tokens of a plain text that is to be gone on with, at most


def held_out_prompts(data: RunData, count: int = ANSWERS) -> list[tuple[int, ...]]:
    """Return what stands before the first answer in held-out documents, as ids: a few of each
    source by turns. Of a plain text it is the beginning."""
    stores = [source.held_out for source in data.sources]
    found, seen = list[tuple[int, ...]](), set[tuple[int, ...]]()
    for index in range(max((len(store.paths) for store in stores), default=0)):
        for store in (each for each in stores if index < len(each.paths)):
            prompt = _prompt(store, index)
            if prompt not in seen:
                found.append(prompt)
                seen.add(prompt)
            if len(found) == count:
                return found
    return found


def answers(
    model: Griffin,
    data: RunData,
    prompts: list[tuple[int, ...]],
    tokens: int = _TOKENS,
    tuned: TunedState | None = None,
    check: Callable[[], object] = lambda: None,
) -> list[dict[str, str]]:
    """Return each prompt and what the model answers, by the likeliest tokens.

    check: called between tokens; what it raises ends the work.
    tuned: the state that stands for BOS in each; then prompts of BOS alone are left out.
    """
    if tuned is not None:
        prompts = [prompt for prompt in prompts if len(prompt) > 1]
    if not prompts:
        return []
    training = model.training
    model.eval()
    try:
        weights = None if tuned is None else (lambda: tuned.weights)
        llm = LLM(model, data.tokenizer, weights=weights, tuned=tuned)
        texts = [""] * len(prompts)
        how = {"temperature": 0.0, "max_tokens": tokens}
        for which, piece, _ in llm.stream_all([list(p) for p in prompts], **how):
            check()
            texts[which] += piece.text
    finally:
        model.train(training)
    return [
        {"prompt": data.tokenizer.decode(list(prompt)), "answer": text}
        for prompt, text in zip(prompts, texts, strict=True)
    ]


def _prompt(store: TokenStore, index: int) -> tuple[int, ...]:
    document = store.encoded(index)
    counted = np.flatnonzero(document.counted)
    first = int(counted[0]) if len(counted) else len(document.ids)
    if first <= 1:  # everything is counted: a plain text
        first = max(1, min(_BEGINNING, len(document.ids) // 2))
    return tuple(document.ids[:first].tolist())
