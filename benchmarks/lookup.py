"""Drafts of ours beside llama.cpp's lookup in the prompt: the same texts, replayed in one run.

Its texts are read as ours are (griffin.bench.draft), as if the model had chosen them: what it
proposes and how often that is right is the text's own, and all work is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, cast

import numpy

from benchmarks.with_llama_cpp import LlamaCpp
from griffin.bench.draft import Recording, Replay, recordings, replay
from griffin.llm import LLM

# Drafts of a call: its default, and what it says is better without a GPU.
DRAFTS = (10, 2)
Propose = Callable[[Sequence[int]], Sequence[int]]


def both(ours: LLM, theirs: LlamaCpp, *, prompt: int, tokens: int) -> Iterator[tuple[str, Replay]]:
    """Yield what drafts save on each text, ours and then theirs; texts as `recordings` has them."""
    words = ours.tokenizer
    for text in recordings(words.encode, words.vocab_size, prompt=prompt, tokens=tokens):
        yield "griffin", replay(ours.model, text)
        known = _within(text, theirs.vocabulary())
        for each in beside(theirs, known):
            yield "llama.cpp", each


def beside(program: LlamaCpp, text: Recording) -> Iterator[Replay]:
    """Yield what its lookup saves on a text, for each number of drafts, by turns of a call."""
    for drafts in DRAFTS:
        program.forget(2, len(text.ids) + max(DRAFTS) + 1)
        plain, drafted = sides = [
            _Side(program, row, text, propose)
            for row, propose in enumerate((_nothing, _lookup(drafts)))
        ]
        while going := [side for side in sides if side.at < len(text.ids) - 1]:
            min(going, key=lambda side: side.at).step()
        yield Replay(
            name=f"{text.name}, {drafts} drafts",
            rows=1,
            tokens=len(text.ids) - text.prompt,
            plain=plain.seconds,
            drafted=drafted.seconds,
            calls=drafted.calls,
            proposed=drafted.proposed,
            accepted=drafted.accepted,
        )


def _within(text: Recording, vocab_size: int) -> Recording:
    """Return a text whose ids are of a vocabulary; a smaller one has several for one id."""
    return replace(text, ids=[id % vocab_size for id in text.ids])


def _nothing(ids: Sequence[int]) -> Sequence[int]:
    return ()


def _lookup(drafts: int) -> Propose:
    """Return llama-cpp-python's own lookup: the first place of the last two tokens, or of one."""
    lookup = cast(Any, import_module("llama_cpp.llama_speculative"))
    found = lookup.LlamaPromptLookupDecoding(num_pred_tokens=drafts)
    return lambda ids: found(numpy.array(ids, numpy.intc)).tolist()


class _Side:
    """A row of the program that has read a text's prompt, and says the rest."""

    def __init__(self, program: LlamaCpp, row: int, text: Recording, propose: Propose) -> None:
        self._program, self._row, self._ids, self._propose = program, row, text.ids, propose
        self.at = text.prompt - 1  # the last token that is not read yet
        self.seconds, self.calls, self.proposed, self.accepted = 0.0, 0, 0, 0
        program.put(row, 0, self._ids[: self.at])

    def step(self) -> None:
        """Read the last token and the drafts behind it in a call, and go back to what is right."""
        ids, begun = self._ids, time.perf_counter()
        drafts = list(self._propose(ids[: self.at + 1]))[: len(ids) - 2 - self.at]
        choices = self._program.choices(self._row, self.at, [ids[self.at], *drafts])
        right = 0
        # What it would choose is found, and the text says what is chosen.
        for _, draft in zip(choices, [*drafts, None], strict=True):
            if draft != ids[self.at + 1 + right]:
                break
            right += 1
        self.at += 1 + right
        if right < len(drafts):
            self._program.go_back(self._row, self.at)
        self.seconds += time.perf_counter() - begun
        self.calls += 1
        self.proposed += len(drafts)
        self.accepted += right
