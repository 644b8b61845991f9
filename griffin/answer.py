"""What an LLM gives back: pieces of text while they come, and a result with its numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from griffin.engine import Event, Generation
from griffin.model import State
from griffin.text import StreamDetokenizer, Tokenizer


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a conversation or a long text has come to: a state, and ids that were not read yet.

    state:   what has been read, one row; None if nothing.
    pending: ids that come next, at least one before a prompt can be continued.
    seen:    (V,) bool, the tokens in `state`, for the repetition penalty.
    tokens:  how many tokens `state` and `pending` hold together.
    A context is a value: generating from it leaves it as it is, so several answers may fork from
                          one.
    """

    state: State | None
    pending: tuple[int, ...]
    seen: Tensor | None
    tokens: int

    def then(self, ids: Sequence[int]) -> Context:
        """Return the context with more ids to read."""
        return Context(
            state=self.state,
            pending=(*self.pending, *ids),
            seen=self.seen,
            tokens=self.tokens + len(ids),
        )


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
        """Tokens a second after the first one: the speed at which text streams. 0 for fewer than
        two."""
        spent = self.seconds - self.first_seconds
        return (len(self.ids) - 1) / spent if len(self.ids) > 1 and spent > 0 else 0.0


@dataclass(frozen=True)
class Piece:
    """A token of an answer and the text that became final with it, often a word, sometimes
    empty."""

    text: str
    id: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...]


class Answer:
    """Collect the events of one request into text and numbers."""

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str], prompt_tokens: int, started: float
    ) -> None:
        self.finished = False
        self._detokenizer = StreamDetokenizer(tokenizer, stop)
        self._prompt_tokens = prompt_tokens
        self._started = started
        self._first: float | None = None
        self._last = started
        self._texts: list[str] = []
        self._events: list[Event] = []
        self._reason: Literal["stop", "length", "cancelled"] = "cancelled"

    def take(self, event: Event) -> Piece:
        """Add a token; `finished` tells whether the answer ends with it, by its ids or by a stop
        string."""
        self._last = time.perf_counter()
        if self._first is None:
            self._first = self._last
        self._events.append(event)
        text = self._detokenizer.push(event.id)
        if self._detokenizer.stopped is not None:
            self._reason, self.finished = "stop", True
        elif event.finish_reason is not None:
            self._reason, self.finished = event.finish_reason, True
            text += self._detokenizer.finish()
        self._texts.append(text)
        return Piece(text, event.id, event.logprob, event.alternatives)

    def result(self, seed: int) -> Result:
        """Return what has been collected; an answer that was cut short gives what it held back."""
        if not self.finished:
            self.finished = True
            self._texts.append(self._detokenizer.finish())
        first = self._last if self._first is None else self._first
        return Result(
            text="".join(self._texts),
            ids=tuple(event.id for event in self._events),
            logprobs=tuple(event.logprob for event in self._events),
            alternatives=tuple(event.alternatives for event in self._events),
            finish_reason=self._reason,
            stop=self._detokenizer.stopped,
            prompt_tokens=self._prompt_tokens,
            first_seconds=first - self._started,
            seconds=self._last - self._started,
            seed=seed,
        )


class Stream(Iterator[Piece]):
    """An answer on its way: iterate for pieces, then look at `result` and `context`."""

    def __init__(
        self, generation: Generation, answer: Answer, prompt: Context, seen: Tensor
    ) -> None:
        self._generation = generation
        self._answer = answer
        self._prompt = prompt
        self._seen = (
            seen  # prompt and state; the answer's ids are added when the context is asked for
        )
        self._result: Result | None = None

    def __next__(self) -> Piece:
        if self._result is not None:
            raise StopIteration
        event = next(self._generation, None)
        if event is None:
            self._close()
            raise StopIteration
        piece = self._answer.take(event)
        if self._answer.finished:
            self._close()
        return piece

    def close(self) -> None:
        """End the answer here; its finish_reason is "cancelled" if it was not over."""
        if self._result is None:
            self._close()

    def _close(self) -> None:
        self._generation.cancel(0)
        self._result = self._answer.result(self._generation.seeds[0])

    @property
    def result(self) -> Result:
        """The whole answer; RuntimeError while it is not over."""
        if self._result is None:
            raise RuntimeError("the answer is not over: iterate to its end, or close() it")
        return self._result

    @property
    def context(self) -> Context:
        """Prompt and answer as the beginning of what comes next; its last id has not been read yet.

        Raises RuntimeError while the answer is not over. Without a single token it is the prompt's
        context.
        """
        ids = self.result.ids
        if not ids:
            return self._prompt
        seen = self._seen.clone()
        seen[list(ids[:-1])] = True
        return Context(
            state=self._generation.state(0),
            pending=(ids[-1],),
            seen=seen,
            tokens=self._prompt.tokens + len(ids),
        )
