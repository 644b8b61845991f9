"""Answers of a model that is being trained, by our own engine, and how probable they are.

Ids and log-probabilities come back as the engine chose them, so nothing is tokenised twice. The
weights are read where the optimiser changes them: no copy is kept of one that is trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from griffin.engine import CHUNK, Context, End, Engine, Event, Request, target_logprobs
from griffin.model import Griffin
from griffin.sampling import SamplingParams

MAX_ROWS = 32  # answers under way at a time


@dataclass(frozen=True)
class Drawn:
    """An answer that was drawn.

    prompt, ids: of the prompt and of the answer; the id that ended it is its last.
    logprobs:    of each id of the answer, natural logarithms, from a softmax in float32 over all of
                 the model's vocabulary.
    ended:       it came to its end; False where it was cut at the most tokens.
    """

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: bool


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Say how answers are drawn: at temperature 1, without filters or penalties, or greedily.

    max_tokens: the most tokens of an answer, its end included. end_ids: what ends it.
    vocab_size: ids from here on are never drawn, for an embedding with more rows than the tokenizer
                has tokens; None draws all. Log-probabilities are of all the model's ids.
    greedy:     take the most probable token instead of drawing one.
    """

    max_tokens: int
    end_ids: frozenset[int]
    vocab_size: int | None = None
    greedy: bool = False

    def request(self, model: Griffin, prompt: Sequence[int], seed: int, adapter: str) -> Request:
        """Return what the engine is asked for a prompt."""
        size = model.config.vocab_size
        params = SamplingParams(
            temperature=0.0 if self.greedy else 1.0,
            max_tokens=self.max_tokens,
            suppress_ids=tuple(range(self.vocab_size or size, size)),
            seed=seed,
        )
        context = Context().then(prompt)
        return Request(context=context, params=params, stop_ids=self.end_ids, adapter=adapter)


def seed_of(*places: int) -> int:
    """Return a seed that is a function of some numbers: a run's seed, a step, a prompt's place."""
    text = " ".join(map(str, places)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def draw(
    model: Griffin,
    prompts: Sequence[Sequence[int]],
    how: Drawing,
    seeds: Sequence[int],
    n: int = 1,
    *,
    adapter: str | None = None,
    max_rows: int = MAX_ROWS,
    check: Callable[[], object] | None = None,
) -> list[list[Drawn]]:
    """Return n answers to each prompt, in order, by the weights as they now are.

    A prompt is read once, and its state forked n ways; sample i of a prompt has the seed
    `seeds[prompt] + i`, so that it is the same in whatever company it is drawn. There is no
    dropout, and no graph for gradients.

    adapter:  name of the model's adapter that answers, "" for none; its first, if it has some, if
              omitted.
    max_rows: answers that are drawn together; memory is for so many states.
    check:    called between steps; what it raises ends the drawing.
    Raises ValueError for an empty prompt and for ids that the model lacks, FloatingPointError where
    its logits are no numbers.
    """
    if adapter is None:
        adapter = next(iter(model.adapters.names), "")
    slots = max(n, min(max_rows, n * len(prompts)))
    engine = Engine(model, slots, chunk=CHUNK, max_waiting=len(prompts))
    events: list[list[Event | End]] = [[] for _ in prompts]
    with answering(model):
        tickets = [
            engine.submit(how.request(model, prompt, seed, adapter), n=n, sink=each.append)
            for prompt, seed, each in zip(prompts, seeds, events, strict=True)
        ]
        while not all(ticket.done for ticket in tickets):
            engine.step()
            if check is not None:
                check()
        engine.close()
    return [
        [_drawn(prompt, [event for event in each if event.choice == choice]) for choice in range(n)]
        for prompt, each in zip(prompts, events, strict=True)
    ]


def _drawn(prompt: Sequence[int], events: Sequence[Event | End]) -> Drawn:
    tokens = list[Event]()
    for event in events:
        if isinstance(event, End):
            raise event.error or RuntimeError(f"an answer was {event.finish_reason}")
        tokens.append(event)
    return Drawn(
        prompt=tuple(prompt),
        ids=tuple(event.id for event in tokens),
        logprobs=tuple(event.logprob for event in tokens),
        ended=tokens[-1].finish_reason == "stop",
    )


@contextmanager
def answering(model: nn.Module) -> Iterator[None]:
    """Leave nothing out while the block runs: what was in training mode is so again after it."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@dataclass(frozen=True)
class AnswerRows:
    """Answers as rows behind their prompts, padded on the right.

    tokens:  (R, L) int64, what is read: all but the last token of each.
    targets: (R, A) int64, the answers' ids. places: (R, A) int64, where in a row each is predicted.
    mask:    (R, A) bool, False behind an answer's end.
    """

    tokens: Tensor
    targets: Tensor
    places: Tensor
    mask: Tensor

    @classmethod
    def of(cls, answers: Sequence[Drawn], device: torch.device) -> AnswerRows:
        """Lay out some answers."""
        longest = max(len(each.prompt) + len(each.ids) for each in answers)
        most = max(len(each.ids) for each in answers)
        tokens = torch.zeros(len(answers), longest - 1, dtype=torch.int64)
        targets, places = torch.zeros(2, len(answers), most, dtype=torch.int64)
        mask = torch.zeros(len(answers), most, dtype=torch.bool)
        for row, each in enumerate(answers):
            ids, count = (*each.prompt, *each.ids), len(each.ids)
            tokens[row, : len(ids) - 1] = torch.tensor(ids[:-1])
            targets[row, :count] = torch.tensor(each.ids)
            places[row, :count] = torch.arange(count) + len(each.prompt) - 1
            mask[row, :count] = True
        return cls(*(t.to(device) for t in (tokens, targets, places, mask)))

    def hidden(self, model: Griffin, adapter: int | None = None) -> Tensor:
        """Return the model's hidden values where the answers' tokens are predicted, (N, D), row
        after row. adapter: the place of the one that reads, -1 for none; the first if omitted."""
        chosen = None if adapter is None else [adapter] * len(self.tokens)
        hidden, _ = model.trunk(self.tokens, adapters=chosen)
        rows = torch.arange(len(self.tokens), device=hidden.device)[:, None]
        return hidden[rows.expand_as(self.places)[self.mask], self.places[self.mask]]

    def spread(self, values: Tensor) -> Tensor:
        """Return a value a token, (N,), in the answers' places: (R, A), 0 behind their ends."""
        return values.new_zeros(self.mask.shape).masked_scatter(self.mask, values)


def logprobs_of(
    model: Griffin, answers: Sequence[Drawn], rows: int, adapter: int | None = None
) -> list[tuple[float, ...]]:
    """Return the log-probability of each id of each answer, without gradients or dropout.

    Of the model that drew them they are those it was drawn with, to the bit. rows: answers that are
    read together. adapter: as for `AnswerRows.hidden`.
    """
    order = sorted(range(len(answers)), key=lambda place: _length(answers[place]))
    found = dict[int, tuple[float, ...]]()
    with answering(model), torch.no_grad():
        for first in range(0, len(order), rows):
            part = order[first : first + rows]
            laid = AnswerRows.of([answers[place] for place in part], model.device)
            hidden, targets = laid.hidden(model, adapter), laid.targets[laid.mask]
            scores = target_logprobs(model, hidden, targets).tolist()
            at = 0
            for place in part:
                count = len(answers[place].ids)
                found[place] = tuple(scores[at : at + count])
                at += count
    return [found[place] for place in range(len(answers))]


def _length(answer: Drawn) -> int:
    return len(answer.prompt) + len(answer.ids)
