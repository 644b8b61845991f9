"""An answer as it comes, parted into text and calls of tools: for every endpoint that has tools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from griffin.engine import FinishReason
from griffin.server.constraints import Form
from griffin.server.generating import Increment, Waiting
from griffin.server.protocol import Scored
from griffin.server.tool_text import CallReader


@dataclass(slots=True)
class AnswerPart:
    """More text, a call's name, more of its arguments, or its end ("").

    tokens: of a text, those that go with it; None if they were not asked for.
    """

    kind: Literal["text", "call", "arguments", "end"]
    text: str
    tokens: list[Scored] | None = None


class Parts:
    """Part one answer while it comes. With tools, text waits as long as it may begin a call."""

    def __init__(self, form: Form) -> None:
        self._reader = CallReader(form.text_first) if form.tools else None
        self._tokens = Waiting()

    @property
    def called(self) -> bool:
        """Whether there is a call."""
        return self._reader is not None and self._reader.called

    @property
    def whole(self) -> bool:
        """Whether there are calls, and none was cut short."""
        return self._reader is not None and self._reader.whole

    def finish(self, reason: FinishReason) -> Literal["stop", "length", "tool_calls"]:
        """Return how the answer ended. reason: what the engine says of it."""
        return "tool_calls" if self.whole else reason

    def take(self, increment: Increment) -> list[AnswerPart]:
        """Add an increment; return what is certain now."""
        text, tokens, reader = increment.text, increment.tokens, self._reader
        if reader is None:
            return [AnswerPart("text", text, tokens)] if text or tokens else []
        self._tokens.add(tokens)
        said = [*reader.feed(text), *(reader.finish() if increment.last else [])]
        parts = [AnswerPart(one.kind, one.text) for one in said]
        if tokens is None:
            return parts
        for part in parts:
            if part.kind == "text":
                part.tokens = self._tokens.sent(part.text)
        if increment.last and self._tokens.left and not reader.called:  # those without a character
            parts.append(AnswerPart("text", "", self._tokens.left))
        return parts
