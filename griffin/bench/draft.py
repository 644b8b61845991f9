"""What drafts save: the cost of calls of several tokens, and texts replayed with and without."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from griffin.engine import Context, End, Engine, Request
from griffin.model import Griffin
from griffin.sampling import SamplingParams


@dataclass(frozen=True)
class Replay:
    """A text that was read as if the model had chosen it.

    tokens: of the answer. plain, drafted: seconds without and with drafts, prompts not counted.
    calls: of the model, with drafts. proposed, accepted: drafts that were read, and right ones.
    """

    name: str
    rows: int
    tokens: int
    plain: float
    drafted: float
    calls: int
    proposed: int
    accepted: int

    @property
    def faster(self) -> float:
        """How many times as fast it is with drafts."""
        return self.plain / self.drafted


class Recorded:
    """A constraint that lets an answer say one text, and tells nobody beforehand.

    The model and the sampler do all their work, and the sampler has no choice.
    """

    def __init__(self, ids: Sequence[int], vocab_size: int) -> None:
        self._ids, self._at = ids, 0
        self._mask = torch.zeros(vocab_size, dtype=torch.bool)

    def allowed(self) -> Tensor:
        self._mask.zero_()
        self._mask[self._ids[self._at]] = True
        return self._mask

    def accept(self, id: int) -> bool:
        self._at += 1
        return self._at == len(self._ids)


def replay(
    model: Griffin,
    name: str,
    ids: Sequence[int],
    prompt: int,
    *,
    rows: int = 1,
    prediction: Sequence[int] = (),
) -> Replay:
    """Let an engine answer with a text twice, without and with drafts.

    ids: the text; its first `prompt` tokens are the prompt, at least one, and the rest the answer.
    rows: so many requests at once, each with the whole text. prediction: as a Request has it.
    Raises ValueError for a text that leaves no two tokens to answer.
    """
    answer = tuple(ids[prompt:])
    if prompt < 1 or len(answer) < 2:
        raise ValueError(f"{name} has {len(ids)} tokens; a prompt of {prompt} leaves no answer")
    seconds: dict[int | None, float] = {}
    calls = proposed = accepted = 0
    for draft in (0, None):
        params = SamplingParams(temperature=0, max_tokens=len(answer), draft=draft)
        request = Request(
            context=Context().then(ids[:prompt]),
            params=params,
            constraint=lambda: Recorded(answer, model.config.vocab_size),
            prediction=tuple(prediction),
        )
        engine = Engine(model, rows, max_waiting=rows)
        tickets = [engine.submit(request, sink=_check) for _ in range(rows)]
        while engine.stats().running < rows:
            engine.step()
        begun = time.perf_counter()
        while not all(ticket.done for ticket in tickets):
            engine.step()
        seconds[draft] = time.perf_counter() - begun
        calls = engine.stats().steps
        proposed = sum(ticket.drafted for ticket in tickets)
        accepted = sum(ticket.accepted for ticket in tickets)
        engine.close()
    return Replay(name, rows, len(answer), seconds[0], seconds[None], calls, proposed, accepted)


def _check(event: object) -> None:
    if isinstance(event, End) and event.error is not None:
        raise event.error
