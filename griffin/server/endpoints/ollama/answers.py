"""An answer in Ollama's form, whole or in lines of JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from griffin.server import protocol as p
from griffin.server.answering import Renderer, Told
from griffin.server.constraints import Form
from griffin.server.endpoints.ollama.reply import (
    DoneReason,
    OllamaCall,
    OllamaChat,
    OllamaFailure,
    OllamaLine,
    OllamaMessage,
    OllamaText,
    called,
    moment,
    nanoseconds,
)
from griffin.server.errors import ApiError
from griffin.server.generating import Collected, Increment
from griffin.server.parts import AnswerPart, Parts
from griffin.server.protocol import Scored, ToolCall
from griffin.server.protocol.reply import token_logprobs
from griffin.server.tool_text import read_answer

MEDIA = "application/x-ndjson"

_ENDS = "\x85\u2028\u2029"

# Given the model's name, more text and whole calls, a line of a stream.
Write = Callable[[str, str, Sequence[OllamaCall]], OllamaLine]


def chat_line(model: str, text: str, calls: Sequence[OllamaCall] = ()) -> OllamaChat:
    """Write a line of /api/chat."""
    message = OllamaMessage(content=text, tool_calls=list(calls) or UNSET)
    return OllamaChat(model=model, created_at=moment(), message=message)


def text_line(model: str, text: str, calls: Sequence[OllamaCall] = ()) -> OllamaText:
    """Write a line of /api/generate, where nothing is called."""
    return OllamaText(model=model, created_at=moment(), response=text)


def nothing(write: Write, model: str, reason: DoneReason) -> OllamaLine:
    """Write the answer to who asked for none: the model is there."""
    line = write(model, "", ())
    line.done, line.done_reason = True, reason
    return line


class Lines(Renderer):
    """An answer. begun: when the request was there, by time.perf_counter.

    A call goes out when it is whole; one that was cut short is none.
    """

    media = MEDIA

    def __init__(self, model: str, write: Write, form: Form, begun: float) -> None:
        self._model = model
        self._write = write
        self._form = form
        self._begun = begun
        self._parts = Parts(form)
        self._call = ToolCall("", "", "")
        self._reason: DoneReason = "stop"
        self.alive = _line(write(model, "", ()))

    def whole(self, answers: Sequence[Collected], told: Told) -> bytes:
        answer = answers[0]
        text, calls = answer.text, list[ToolCall]()
        if self._form.tools:
            read = read_answer(text, self._form.text_first)
            text, calls = read.text, read.calls if read.whole else read.calls[:-1]
        line = self._write(self._model, text, [called(call) for call in calls])
        tokens = answer.tokens
        if tokens is not None and len(text) < len(answer.text):
            tokens = [token for token in tokens if token.offset < len(text)]
        self._reason = "length" if answer.finish == "length" else "stop"
        return p.encode(self._ended(_scored(line, tokens), told))

    def begin(self, used: p.Usage) -> bytes:
        return b""

    def more(self, increment: Increment) -> bytes:
        if increment.finish is not None:
            self._reason = "length" if increment.finish == "length" else "stop"
        return b"".join(map(self._written, self._parts.take(increment)))

    def end(self, told: Told) -> bytes:
        return _line(self._ended(self._write(self._model, "", ()), told))

    def fail(self, error: ApiError) -> bytes:
        return _line(OllamaFailure.of(error, ""))

    def _written(self, part: AnswerPart) -> bytes:
        if part.kind == "text":
            line = self._write(self._model, part.text, ())
            return _line(_scored(line, part.tokens))
        if part.kind == "call":
            self._call = ToolCall(p.new_id("call_"), part.text, "")
        elif part.kind == "arguments":
            arguments = self._call.arguments + part.text
            self._call = ToolCall(self._call.id, self._call.name, arguments)
        else:
            return _line(self._write(self._model, "", [called(self._call)]))
        return b""

    def _ended(self, line: OllamaLine, told: Told) -> OllamaLine:
        """Tell in a line that it is the last, why, and what the answer cost."""
        total = time.perf_counter() - self._begun
        waited, read = told.extras.queue_seconds, told.extras.prompt_seconds
        waited, read = waited or 0.0, read or 0.0
        line.done, line.done_reason = True, self._reason
        line.total_duration = nanoseconds(total)
        line.load_duration = nanoseconds(waited)
        line.prompt_eval_count = told.usage.prompt_tokens
        line.prompt_eval_duration = nanoseconds(read)
        line.eval_count = told.usage.completion_tokens
        line.eval_duration = nanoseconds(total - waited - read)
        line.griffin = told.extras
        return line


def _scored(line: OllamaLine, tokens: Sequence[Scored] | None) -> OllamaLine:
    if tokens is not None:
        line.logprobs = token_logprobs(tokens)
    return line


def _line(value: Any) -> bytes:
    """Write a line, without any character that Python's splitlines, too, takes for its end."""
    written = msgspec.json.encode(value)
    for character in _ENDS:
        written = written.replace(character.encode(), b"\\u%04x" % ord(character))
    return written + b"\n"
