"""What an LLM gives back: pieces of text while they come, a result with its numbers,
and scores."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from griffin.engine import Context, End, Event, FinishReason, Generation, Request
from griffin.text import StreamDetokenizer, Tokenizer


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished answer.

    text:              what was generated, without control tokens, cut before a stop string.
    ids:               every generated id; one that ended the answer is the last.
    logprobs:          the log-probability of each id under the model, before sampling filters.
    alternatives:      for each id the most probable tokens there, (id, log-probability), as asked
                       for.
    finish_reason:     "stop" (a stop id or string), "length" (max_tokens) or "cancelled".
    stop:              the stop string that was met, if one was.
    prompt_tokens:     ids of the prompt, whether they were read now or in a context before.
    generated_tokens:  len(ids).
    first_seconds:     from the call to the first token: reading the prompt.
    seconds:           from the call to the last token.
    seed:              start of the random numbers; given again, it gives this answer again.
    """

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    alternatives: tuple[tuple[tuple[int, float], ...], ...]
    finish_reason: Literal["stop", "length", "cancelled"]
    stop: str | None
    prompt_tokens: int
    first_seconds: float
    seconds: float
    seed: int

    @property
    def generated_tokens(self) -> int:
        return len(self.ids)

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens a second, the reading of the prompt included; 0 for none."""
        return len(self.ids) / self.seconds if self.seconds > 0 else 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """Tokens a second after the first one, as text streams; 0 for fewer than two."""
        spent = self.seconds - self.first_seconds
        return (len(self.ids) - 1) / spent if len(self.ids) > 1 and spent > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Score:
    """How probable the model finds a text.

    ids:      the ids that were scored: those of the text, without the BOS before it. Of a prompt
              given as ids the first one has nothing before it and is left out.
    logprobs: the natural logarithm of each id's probability given everything before it.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]

    @property
    def total(self) -> float:
        """The log-probability of the whole text, in nats."""
        return sum(self.logprobs)


@dataclass(frozen=True, slots=True)
class Piece:
    """What an event added to an answer: a token, and the text that became final with it.

    text:         often a word, sometimes empty: a character's first half waits for the second, and
                  what may begin a stop string for what follows.
    id:           the token; None where the answer was ended without one.
    logprob:      its log-probability under the model, before sampling filters.
    alternatives: the most probable tokens there, (id, log-probability), as many as were asked for.
    offset:       where the token's own text begins, in characters of the answer.
    finish:       how the answer ends with it; None while it goes on.
    choice:       which of the request's answers.
    end:          what ended it from outside, if something did.
    """

    text: str
    id: int | None = None
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()
    offset: int | None = None
    finish: FinishReason | None = None
    choice: int = 0
    end: End | None = None

    @property
    def last(self) -> bool:
        """Whether nothing follows."""
        return self.finish is not None or self.end is not None


class Writer:
    """Write one answer: the engine's events in, pieces of text out. Nothing else does that.

    tokenizer: of the model.
    request:   what was asked: its params say which strings end the answer, no part of it.
    choice:    which of the request's answers it is.
    events:    those that brought a token.
    ended:     the answer is over: by its ids, by a stop string, from outside, or by `finish`.
    """

    def __init__(self, tokenizer: Tokenizer, request: Request, choice: int = 0) -> None:
        self.choice = choice
        self.events: list[Event] = []
        self.ended = False
        params = request.params
        self._detokenizer = StreamDetokenizer(tokenizer, params.stop, early=params.min_tokens)
        self._texts: list[str] = []
        self._reason: FinishReason | Literal["cancelled"] = "cancelled"
        self._begun = self._first = self._last = time.perf_counter()

    @property
    def ids(self) -> list[int]:
        """Every id so far; one that ended the answer is the last."""
        return [event.id for event in self.events]

    @property
    def text(self) -> str:
        """All text that is final."""
        return "".join(self._texts)

    @property
    def finish_reason(self) -> FinishReason | Literal["cancelled"]:
        """How it ended; "cancelled" while it goes on."""
        return self._reason

    @property
    def stop(self) -> str | None:
        """The stop string that was met, if one was."""
        return self._detokenizer.stopped

    def take(self, event: Event | End) -> Piece | None:
        """Add an event; None for what comes after the answer's end."""
        if self.ended:
            return None
        if isinstance(event, End):
            return Piece(self.finish(), choice=self.choice, end=event)
        self._last = time.perf_counter()
        if not self.events:
            self._first = self._last
        self.events.append(event)
        offset = self._detokenizer.offset
        text = self._detokenizer.push(event.id)
        finish = "stop" if self.stop is not None else event.finish_reason
        self._texts.append(text)
        if finish is not None:
            self._reason = finish
            text += self.finish()
        return Piece(text, event.id, event.logprob, event.alternatives, offset, finish, self.choice)

    def finish(self) -> str:
        """End the answer here, and return the text that was held back."""
        self.ended = True
        text = self._detokenizer.finish()
        self._texts.append(text)
        return text

    def result(self, prompt_tokens: int, seed: int) -> Result:
        """Return the answer as it stands; one that was not over is ended."""
        if not self.ended:
            self.finish()
        return Result(
            text=self.text,
            ids=tuple(self.ids),
            logprobs=tuple(event.logprob for event in self.events),
            alternatives=tuple(event.alternatives for event in self.events),
            finish_reason=self._reason,
            stop=self.stop,
            prompt_tokens=prompt_tokens,
            first_seconds=self._first - self._begun,
            seconds=self._last - self._begun,
            seed=seed,
        )


class Stream(Iterator[Piece]):
    """An answer on its way: iterate for pieces, then look at `result` and `context`."""

    def __init__(self, generation: Generation, writer: Writer, prompt_tokens: int) -> None:
        self._generation = generation
        self._writer = writer
        self._prompt_tokens = prompt_tokens
        self._result: Result | None = None

    def __next__(self) -> Piece:
        if self._result is not None:
            raise StopIteration
        event = next(self._generation, None)
        piece = None if event is None else self._writer.take(event)
        if self._writer.ended or piece is None:
            self.close()
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        """End the answer here; its finish_reason is "cancelled" if it was not over."""
        if self._result is None:
            self._generation.cancel(0)
            self._result = self._writer.result(self._prompt_tokens, self._generation.seeds[0])

    @property
    def result(self) -> Result:
        """The whole answer; RuntimeError while it is not over."""
        if self._result is None:
            raise RuntimeError("the answer is not over: iterate to its end, or close() it")
        return self._result

    @property
    def context(self) -> Context:
        """Prompt and answer as the beginning of what comes next; its last id was not read yet.

        Of an answer that was stopped before its first token, as much of the prompt as was read, and
        the rest of it. Raises RuntimeError while the answer is not over.
        """
        _ = self.result
        return self._generation.context(0)
