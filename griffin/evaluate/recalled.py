"""How much of long texts a model recalls: the questions of `recall`, by length."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from griffin.engine import hidden_pieces, scored_targets
from griffin.evaluate.recall import RecallQuestion, sized
from griffin.llm import LLM


@dataclass(frozen=True, kw_only=True)
class Recalled:
    """What a model answered to the questions of one task and length.

    tokens:   the length that was asked for; texts come within one unit of it.
    exact:    share of answers whose every token was the most probable one there.
    stderr:   standard error of that share.
    right:    share of the answers' tokens that were the most probable ones.
    nats:     mean of -log p of the answers' tokens, in nats.
    distance: median number of tokens between where an answer stood and where it was asked for.
    """

    task: str
    tokens: int
    questions: int
    exact: float
    stderr: float
    right: float
    nats: float
    distance: int


def measure_recall(
    llm: LLM,
    tasks: Sequence[str],
    lengths: Sequence[int],
    *,
    questions: int,
    seed: int = 0,
    prose: Sequence[str] = (),
    advance: Callable[[int], object] = lambda tokens: None,
) -> Iterator[Recalled]:
    """Ask so many questions of each task and length, and give a result as soon as it is there.

    prose: sentences for `niah`. advance: called with the tokens of each text after it was read.
    Every model is asked the same questions where its tokenizer is the same.
    Raises ValueError for an unknown task and for a length in which a task has no question.
    """
    for task in tasks:
        for tokens in lengths:
            found = []
            for number in range(questions):
                asked = sized(task, tokens, number, seed=seed, count=_counter(llm), prose=prose)
                found.append(_answer(llm, asked, advance))
            exact = statistics.fmean(all(right) for right, _, _ in found)
            right = [each for right, _, _ in found for each in right]
            yield Recalled(
                task=task,
                tokens=tokens,
                questions=questions,
                exact=exact,
                stderr=math.sqrt(exact * (1 - exact) / questions),
                right=statistics.fmean(right),
                nats=-sum(logprob for _, logprob, _ in found) / len(right),
                distance=int(statistics.median(distance for _, _, distance in found)),
            )


def _counter(llm: LLM) -> Callable[[str], int]:
    return lambda text: len(llm.tokenizer.encode(text))


def _answer(
    llm: LLM, asked: RecallQuestion, advance: Callable[[int], object]
) -> tuple[list[bool], float, int]:
    """Return which tokens of the answer are the most probable, their log-probability together, and
    how many tokens before the question's end the answer stood."""
    ids = llm.tokenizer.encode(asked.prompt + asked.answer)
    prompt = llm.tokenizer.encode(asked.prompt)
    begins = llm.beginning and llm.beginning.for_ids(ids)
    # Where a token holds the prompt's end and the answer's beginning, it is the answer's first.
    first = next(
        (at for at, (a, b) in enumerate(zip(prompt, ids, strict=False)) if a != b), len(prompt)
    )
    wanted = torch.tensor(ids[first:], device=llm.model.device)
    tail = []
    with torch.no_grad():
        for start, hidden in hidden_pieces(llm.model, ids, adapter=llm.adapter, begins=begins):
            if start + len(hidden) >= first:  # after its last place stands one of the answer
                tail.append(hidden[max(first - 1 - start, 0) :])
        hidden = torch.cat(tail)
        places = torch.arange(len(wanted), device=wanted.device)
        logprobs, best = scored_targets(llm.model, hidden, wanted, places)
    advance(len(ids))
    distance = len(llm.tokenizer.encode(asked.prompt[asked.fact :], bos=False))
    return best.tolist(), float(logprobs.double().sum()), distance
