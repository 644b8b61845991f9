"""Tools as text: how the model is told of them, and how its calls are read. Experimental.

A call is `<tool_call>{"name": "look", "arguments": {...}}</tool_call>`; a second one stands on the
next line. `griffin.server.constraints` lets the model write it only so, hence reading needs no
guesses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import msgspec

from griffin.server.protocol import Message, Tool, ToolCall, new_id

OPEN, CLOSE = "<tool_call>", "</tool_call>"
NEXT = f"\n{OPEN}"
_ABOUT = "You may call these functions:"
_HOW = f'To call one, answer with nothing but {OPEN}{{"name": ..., "arguments": {{...}}}}{CLOSE}'
_HEAD = re.compile(r'\{"name": "([A-Za-z0-9_-]+)", "arguments": ')


def as_text(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return a conversation with the calls and results of tools as text."""
    return tuple(_written(message) for message in messages)


def head(name: str) -> str:
    """Return how a call begins, up to its arguments."""
    return f'{{"name": "{name}", "arguments": '


class Said(NamedTuple):
    """A part of an answer: more text, a call's name, more of its arguments, or its end ("")."""

    kind: Literal["text", "call", "arguments", "end"]
    text: str


class CallReader:
    """Part an answer into text and calls while it comes.

    anywhere: text may come before the first call; if not, an answer is either text or calls.
    White space between text and a call belongs to neither.

    `called` tells that there is a call, and `whole` that every call is complete.
    """

    def __init__(self, anywhere: bool = True) -> None:
        self.called = False
        self._anywhere = anywhere
        self._held = ""
        self._place: Literal["text", "plain", "head", "arguments", "close", "between"] = "text"
        self._depth = 0
        self._inside = self._escaped = False  # a string; a character after a backslash

    @property
    def whole(self) -> bool:
        return self.called and self._place == "between"

    def feed(self, text: str) -> list[Said]:
        """Add text; return what is certain now. Arguments come as they are written."""
        self._held += text
        said: list[Said] = []
        while (more := self._step()) is not None:
            said += [part for part in more if part.text or part.kind == "end"]
        return said

    def finish(self) -> list[Said]:
        """End the answer; return the text held back. A call cut before its name is none."""
        text, self._held = self._held, ""
        return [Said("text", text)] if text and self._place == "text" else []

    def _step(self) -> list[Said] | None:
        """Take a step from one place to the next; None while there is nothing to do."""
        if self._place == "text":
            return self._text()
        if self._place == "plain":
            text, self._held = self._held, ""
            return [Said("text", text)] if text else None
        if self._place == "head":
            found = _HEAD.match(self._held)
            if found is None:
                return None
            self._held = self._held[found.end() :]
            self._place, self.called = "arguments", True
            return [Said("call", found[1])]
        if self._place == "arguments":
            return self._arguments()
        end = "}" + CLOSE if self._place == "close" else NEXT
        if not self._held.startswith(end):
            return None
        self._held = self._held.removeprefix(end)
        if self._place == "between":
            self._place = "head"
            return []
        self._place = "between"
        return [Said("end", "")]

    def _text(self) -> list[Said] | None:
        at = self._held.find(OPEN) if self._anywhere else 0 if self._held.startswith(OPEN) else -1
        if at >= 0:
            text, self._held = self._held[:at].rstrip(), self._held[at + len(OPEN) :]
            self._place = "head"
            return [Said("text", text)]
        if not self._anywhere:
            if OPEN.startswith(self._held):
                return None
            self._place = "plain"
            return []
        begun = next((n for n in range(len(OPEN) - 1, 0, -1) if self._held.endswith(OPEN[:n])), 0)
        certain = len(self._held[: len(self._held) - begun].rstrip())
        text, self._held = self._held[:certain], self._held[certain:]
        return [Said("text", text)] if text else None

    def _arguments(self) -> list[Said] | None:
        """Give a JSON object up to its last brace."""
        for place, character in enumerate(self._held):
            if self._escaped:
                self._escaped = False
            elif self._inside:
                self._escaped, self._inside = character == "\\", character != '"'
            elif character == '"':
                self._inside = True
            elif character in "{}[]":
                self._depth += 1 if character in "{[" else -1
                if not self._depth:
                    text, self._held = self._held[: place + 1], self._held[place + 1 :]
                    self._place = "close"
                    return [Said("arguments", text)]
        text, self._held = self._held, ""
        return [Said("arguments", text)] if text else None


@dataclass(frozen=True)
class Read:
    """A finished answer. text: before the calls. whole: there are calls, and none was cut short."""

    text: str
    calls: list[ToolCall]
    whole: bool


def read_answer(text: str, anywhere: bool = True) -> Read:
    """Part a finished answer into text and calls. anywhere: as CallReader has it."""
    reader = CallReader(anywhere)
    texts: list[str] = []
    calls: list[ToolCall] = []
    for said in [*reader.feed(text), *reader.finish()]:
        if said.kind == "text":
            texts.append(said.text)
        elif said.kind == "call":
            calls.append(ToolCall(new_id("call_"), said.text, ""))
        elif said.kind == "arguments":
            calls[-1] = replace(calls[-1], arguments=calls[-1].arguments + said.text)
    return Read("".join(texts), calls, reader.whole)


def _written(message: Message) -> Message:
    if message.role == "tool":
        name = f" of {message.name}" if message.name else ""
        return Message("user", f"Result{name} ({message.tool_call_id}):\n{message.content}")
    if not message.tool_calls:
        return message
    calls = [
        f"{OPEN}{head(call.name)}{call.arguments or '{}'}}}{CLOSE}" for call in message.tool_calls
    ]
    content = "\n".join([message.content, *calls] if message.content else calls)
    return replace(message, content=content, tool_calls=())


def described(tools: Sequence[Tool]) -> str:
    """Return what tells the model of its tools."""
    return "\n".join([_ABOUT, *map(_tool, tools), _HOW])


def told(words: str | None) -> tuple[list[Tool], str | None]:
    """Return the tools that a text before a first message describes, and the rest of it: what
    `described` and a system text, joined, were made of."""
    about, found, system = (words or "").partition(f"\n{_HOW}")
    first, *lines = about.split("\n")
    if not found or first != _ABOUT:
        return [], words
    try:
        tools = [Tool(**msgspec.json.decode(line), strict=False) for line in lines]
    except (TypeError, ValueError):
        return [], words
    return tools, system.removeprefix("\n\n") or None


def _tool(tool: Tool) -> str:
    about: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    return msgspec.json.encode(about).decode()
