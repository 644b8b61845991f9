"""An answer's events to text that can be shown, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from griffin.engine import End, Event, FinishReason
from griffin.server.protocol import Candidate, Scored
from griffin.text import StreamDetokenizer, Tokenizer


@dataclass(slots=True)
class Piece:
    """What an event added to an answer.

    choice: which answer. text: what became final. tokens: those that became final with it, if asked
            for.
    count:  tokens it stands for. finish: how the answer ended, None while it goes on.
    end:    it was ended from outside.
    """

    choice: int
    text: str
    tokens: list[Scored] | None
    count: int = 1
    finish: FinishReason | None = None
    end: End | None = None

    @property
    def last(self) -> bool:
        return self.finish is not None or self.end is not None


class Writer:
    """Write one answer. Runs where the events come from: on the engine's thread.

    stop:      stop strings. logprobs: collect tokens with their log-probabilities.
    keep_last: the control token that ends an answer is one of its tokens, as evaluations count.
    shift:     characters before the answer, of an echoed prompt.

    ids: all tokens so far. text: all text so far. stopped: a stop string was met.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        choice: int,
        stop: Sequence[str],
        *,
        logprobs: bool = False,
        keep_last: bool = False,
        shift: int = 0,
    ) -> None:
        self.choice = choice
        self.ids: list[int] = []
        self.ended = False
        self._tokenizer = tokenizer
        self._detokenizer = StreamDetokenizer(tokenizer, stop)
        self._held: list[Scored] | None = [] if logprobs else None
        self._keep_last = keep_last
        self._shift = shift
        self._texts: list[str] = []
        self._written = 0

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def stopped(self) -> bool:
        return self._detokenizer.stopped is not None

    def take(self, event: Event | End) -> Piece | None:
        """Add an event; None for what comes after the answer's end."""
        if self.ended:
            return None
        if isinstance(event, End):
            self.ended = True
            piece = self._piece(self._detokenizer.finish(), True)
            piece.count, piece.end = 0, event
            return piece
        offset = self._detokenizer.offset
        text = self._detokenizer.push(event.id)
        self.ids.append(event.id)
        finish = event.finish_reason
        if self.stopped:
            finish = "stop"
        elif finish is not None:
            text += self._detokenizer.finish()
        if self._held is not None:
            control = event.id in self._tokenizer.control_ids and finish == "stop"
            if self._keep_last or not control:
                self._held.append(self._scored(event, offset))
        self.ended = finish is not None
        piece = self._piece(text, self.ended and not self.stopped)
        piece.finish = finish
        return piece

    def _piece(self, text: str, everything: bool) -> Piece:
        self._texts.append(text)
        self._written += len(text)
        tokens: list[Scored] | None = None
        if self._held is not None:
            # A token goes out with the first of its characters; those of a stop string never do.
            reached = self._shift + self._written
            count = len(self._held) if everything else sum(t.offset < reached for t in self._held)
            tokens, self._held = self._held[:count], self._held[count:]
        return Piece(self.choice, text, tokens)

    def _scored(self, event: Event, offset: int) -> Scored:
        return scored(
            self._tokenizer, event.id, event.logprob, event.alternatives, self._shift + offset
        )


def scored(
    tokenizer: Tokenizer,
    id: int,
    logprob: float | None,
    alternatives: Sequence[tuple[int, float]],
    offset: int,
) -> Scored:
    """Return a token as answers show it."""
    others = [
        Candidate(tokenizer.token_text(i), tokenizer.token_bytes(i), value)
        for i, value in alternatives
    ]
    return Scored(tokenizer.token_text(id), tokenizer.token_bytes(id), logprob, others, offset)
