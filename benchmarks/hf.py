"""transformers' `generate` on our trunk beside `LLM.generate`: the same weights, by turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import griffin
import griffin.hf


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Medians over the rounds: tokens a second, and seconds of processor time a token."""

    ours: float
    theirs: float
    ours_cpu: float
    theirs_cpu: float

    @property
    def share(self) -> float:
        """How much of LLM.generate's speed transformers' generate has."""
        return self.theirs / self.ours


def beside(llm: griffin.LLM, *, prompt: int, tokens: int, rounds: int) -> Beside:
    """Let both answer the same prompt greedily, by turns, after one round that does not count.

    Nothing is drafted: weights that are random go in circles, of which every draft is right.

    prompt, tokens: how many ids are read, and made. Raises AssertionError if they are not the same
    ids: then it is not the same work.
    """
    import torch

    model = griffin.hf.from_griffin(llm)
    ids = torch.arange(3, 3 + prompt)[None] % llm.tokenizer.vocab_size
    made: dict[str, list[int]] = {}

    def ours() -> list[int]:
        answer = llm.generate(
            ids[0].tolist(), temperature=0, max_tokens=tokens, ignore_eos=True, draft=0
        )
        return list(answer.ids)

    def theirs() -> list[int]:
        model.generation_config.eos_token_id = None
        out = model.generate(ids, max_new_tokens=tokens, do_sample=False)
        return out[0, prompt:].tolist()

    spent: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    ways: dict[str, Callable[[], list[int]]] = {"ours": ours, "theirs": theirs}
    for count in range(rounds + 1):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            made[name] = way()
            if count:
                spent[name].append((time.perf_counter() - wall, time.process_time() - cpu))
        assert made["ours"] == made["theirs"], "they chose different tokens"
    wall = {name: statistics.median(w for w, _ in each) for name, each in spent.items()}
    cpu = {name: statistics.median(c for _, c in each) for name, each in spent.items()}
    return Beside(
        ours=tokens / wall["ours"],
        theirs=tokens / wall["theirs"],
        ours_cpu=cpu["ours"] / tokens,
        theirs_cpu=cpu["theirs"] / tokens,
    )
