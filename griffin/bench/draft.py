"""What drafts save: the cost of calls of several tokens, and texts replayed with and without."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from griffin.bench.texts import Excerpt, excerpts
from griffin.engine import Context, End, Engine, Event, Request
from griffin.engine.draft_length import Costs
from griffin.model import Griffin
from griffin.sampling import Looks, SamplingParams

_LEAST = 8  # tokens of an answer that tell anything
_PIECE = 8  # tokens of a call that a prompt is reckoned by


@dataclass(frozen=True)
class Recording:
    """A text to replay: its first `prompt` tokens, at least one, are read, the rest is answered.

    prediction: as a Request has it.
    """

    name: str
    ids: Sequence[int]
    prompt: int
    prediction: Sequence[int] = ()

    def cut(self, tokens: int) -> Recording:
        """Return it with an answer of so many tokens at most."""
        return replace(self, ids=self.ids[: self.prompt + tokens])


def recordings(
    encode: Callable[..., list[int]],
    vocab_size: int,
    *,
    prompt: int,
    tokens: int,
    files: Sequence[Path] = (),
) -> list[Recording]:
    """Return the texts that drafts are measured with, or those of files.

    encode, vocab_size: a Tokenizer's. prompt: their first tokens, where they have no beginning of
    their own. tokens: of each at most.
    Those of files come twice: "again" has itself as its prediction.
    """
    found = list[Recording]()
    read = {file.name: Excerpt("", file.read_text("utf-8")) for file in files} or excerpts()
    for name, excerpt in read.items():
        before = encode(excerpt.prompt) if excerpt.prompt else []
        ids = before + encode(excerpt.answer, bos=not before)[:tokens]
        found.append(Recording(name, ids, len(before) or prompt))
        if files:
            found.append(Recording(f"{name} again", ids, prompt, ids[prompt:]))
    if not files:
        drawn = torch.Generator().manual_seed(0)
        ids = torch.randint(vocab_size, (tokens,), generator=drawn).tolist()
        found.append(Recording("random tokens", ids, prompt))
    return found


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

    @property
    def tokens_per_second(self) -> tuple[float, float]:
        """Of all rows together, without and with drafts."""
        return self.rows * self.tokens / self.plain, self.rows * self.tokens / self.drafted


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


def tokens_within(
    seconds: float, texts: Sequence[Recording], rows: Sequence[int], costs: Costs
) -> int:
    """Return how long answers may be so that all replays take about so many seconds at most.

    What drafts save is not counted on. Raises ValueError where nothing can be told in that time.
    """
    call = costs.seconds[1]
    prompts = sum(2 * count * text.prompt for text in texts for count in rows)
    reading = prompts * call * costs.of(_PIECE) / _PIECE
    token = sum(2 * len(texts) * call * costs.of(count) for count in rows)
    found = int((seconds - reading) / token)
    if found < _LEAST:
        raise ValueError(
            f"{seconds:.0f} seconds are left for {len(texts)} texts, of {', '.join(map(str, rows))}"
            f" rows; {_LEAST} tokens of each take {reading + _LEAST * token:.0f}: give more"
            " --minutes, fewer --rows or one --text"
        )
    return found


def replay(
    model: Griffin, text: Recording, rows: int = 1, *, beside: Griffin | None = None
) -> Replay:
    """Let two engines answer with a text, one without and one with drafts.

    They take turns by the call, the one that has said less first, so that both see the machine in
    the same moods.

    rows:   so many requests at once, each with the whole text.
    beside: the model of the engine without drafts, where it is another of the same vocabulary.
    Raises ValueError for a text that leaves no two tokens to answer.
    """
    if text.prompt < 1 or len(text.ids) - text.prompt < 2:
        raise ValueError(
            f"{text.name} has {len(text.ids)} tokens; a prompt of {text.prompt} leaves no answer"
        )
    plain, drafted = sides = [
        _Side(model if beside is None else beside, text, rows, 0),
        _Side(model, text, rows, None),
    ]
    try:
        while going := [side for side in sides if not side.done]:
            min(going, key=lambda side: side.told).step()
        tickets = drafted.tickets
        return Replay(
            name=text.name,
            rows=rows,
            tokens=len(text.ids) - text.prompt,
            plain=plain.seconds,
            drafted=drafted.seconds,
            calls=drafted.engine.stats().steps,
            proposed=sum(ticket.drafted for ticket in tickets),
            accepted=sum(ticket.accepted for ticket in tickets),
        )
    finally:
        for side in sides:
            side.engine.close()


class _Greedy(Request):
    """A request that looks at the logits that greedy choices look at: no other answer is possible,
    but the work is that of an answer without a constraint, behind a screen too."""

    @cached_property
    def looks_at(self) -> Looks:
        return self.params.looks_at


class _Side:
    """An engine that has read a text's prompt for so many rows, and says the rest.

    told: tokens of all rows together. seconds: that its steps took since the prompts were read.
    """

    def __init__(self, model: Griffin, text: Recording, rows: int, draft: int | None) -> None:
        prompt, answer = text.ids[: text.prompt], tuple(text.ids[text.prompt :])
        request = _Greedy(
            context=Context().then(prompt),
            params=SamplingParams(temperature=0, max_tokens=len(answer), draft=draft),
            constraint=lambda: Recorded(answer, model.config.vocab_size),
            prediction=tuple(text.prediction),
        )
        self.told, self.seconds = 0, 0.0
        self.engine = Engine(model, rows, max_waiting=rows)
        self.tickets = [self.engine.submit(request, sink=self._hear) for _ in range(rows)]
        while self.engine.stats().running < rows:
            self.engine.step()

    @property
    def done(self) -> bool:
        return all(ticket.done for ticket in self.tickets)

    def step(self) -> None:
        begun = time.perf_counter()
        self.engine.step()
        self.seconds += time.perf_counter() - begun

    def _hear(self, event: object) -> None:
        if isinstance(event, End) and event.error is not None:
            raise event.error
        self.told += isinstance(event, Event)
