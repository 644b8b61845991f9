"""What tasks would ask of a model: tokens to read and to write, and how fast it does either."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from lm_eval.api.instance import Instance

from griffin.evaluate.branches import Ids
from griffin.evaluate.lm_eval import GriffinLM, sampling_of
from griffin.evaluate.reading import Measured, TextReader
from griffin.llm import LLM

_TEXTS, _LENGTH, _ANSWERS, _TOKENS = 16, 64, 16, 8


class CountingLM(GriffinLM):
    """Counts what it is asked, and answers nothing that means anything."""

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        texts = list[Ids]()
        for request in requests:
            context, said = cast(tuple[str, dict[str, Any]], request.args)
            texts.append(np.array(self.tok_encode(context), np.uint32))
            self.written += sampling_of(said)["max_tokens"]
        self._count(texts)
        return [""] * len(requests)

    def _measure(self, pairs: Sequence[tuple[Ids, int]]) -> list[Measured]:
        self._count([ids for ids, _ in pairs])
        return [Measured(logprob=0.0, greedy=False)] * len(pairs)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Tokens a second, read in batches and written by several answers together."""

    reading: float
    writing: float

    def hours(self, read: int, written: int) -> float:
        return (read / self.reading + written / self.writing) / 3600


def rates_of(llm: LLM) -> Rates:
    """Measure how fast a model reads and writes on this machine now: a call or two of each."""
    draw = np.random.default_rng(0)
    texts = [
        draw.integers(0, llm.tokenizer.vocab_size, _LENGTH + 1, np.uint32) for _ in range(_TEXTS)
    ]
    for ids in texts:
        ids[0] = llm.tokenizer.bos_id
    for each in texts[:1], texts:  # the first warms up
        begun = time.perf_counter()
        dict(TextReader(llm.model, each, [_LENGTH] * len(each), llm.adapter, llm.beginning))
        reading = len(each) * _LENGTH / (time.perf_counter() - begun)
    prompts = [ids[:2].tolist() for ids in texts[:_ANSWERS]]
    begun = time.perf_counter()
    llm.generate(prompts, temperature=0, max_tokens=_TOKENS, ignore_eos=True, stop=())
    writing = _ANSWERS * _TOKENS / (time.perf_counter() - begun)
    return Rates(reading=reading, writing=writing)
