"""One row of a set, recognised by its columns: the shapes that TRL's trainers read.

    text                           plain text, of which everything is learned
    messages                       a conversation, of which the assistant's answers are
    prompt, completion             text or messages, of which the completion is
    prompt, chosen, rejected       two answers to compare, by tune.method "dpo"
    prompt                         a question alone, of whose answers a reward is asked

A row says one of these. Columns beside them are passed over, except `finish_reason`, which may also
stand in a message: of an answer that was cut by "length" the end is not learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from griffin.foreign import shown
from griffin.text.chat import checked_messages

Message = Mapping[str, Any]
Words = str | tuple[Message, ...]  # of a prompt or a completion: text, or messages

_SHAPES = (
    ("text",),
    ("messages",),
    ("prompt", "completion"),
    ("prompt", "chosen", "rejected"),
    ("prompt",),
)
COLUMNS = ("text", "messages", "prompt", "completion", "chosen", "rejected", "finish_reason")
_KNOWN = {column for shape in _SHAPES for column in shape}
# Why an answer ended that has no end of its own, as servers say it.
_CUT = ("length", "max_tokens", "MAX_TOKENS")


@dataclass(frozen=True)
class TextRow:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class ConversationRow:
    """Messages, as `griffin.text.Chat` takes them.

    first: of which on answers are learned. cut: the last answer has no end of its own.
    """

    messages: tuple[Message, ...]
    first: int = 0
    cut: bool = False


@dataclass(frozen=True)
class CompletionRow:
    """A prompt and what is learned to follow it, as text. cut: it has no end of its own."""

    prompt: str
    completion: str
    cut: bool = False


@dataclass(frozen=True)
class PreferenceRow:
    """A prompt, the better answer to it and the worse."""

    prompt: Words
    chosen: Words
    rejected: Words


@dataclass(frozen=True)
class PromptRow:
    """A prompt that is to be answered."""

    prompt: Words


Example = TextRow | ConversationRow | CompletionRow | PreferenceRow | PromptRow


def read_example(row: object, columns: Iterable[str] = ()) -> Example:
    """Return what a row says.

    columns: those that are read; none: all. Raises ValueError, with the reason, for a row of no
    known shape or of several, values of a wrong type, conversations that cannot be (`Chat.ids`),
    and empty answers.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"a row is an object with columns, not {shown(row)}")
    kept = set(columns) or set(COLUMNS)
    # A table has every column in every row; what is null there does not stand in this one.
    found = {name: row[name] for name in row if name in kept and row[name] is not None}
    shape = found.keys() & _KNOWN
    if shape not in map(set, _SHAPES):
        raise ValueError(_wrong_shape(row, shape))
    cut = _is_cut(found)
    if "text" in shape:
        return TextRow(_text(found["text"], "text"))
    if "messages" in shape:
        return _conversation(_messages(found["messages"], "messages"), 0, cut)
    prompt = _words(found["prompt"], "prompt")
    others = {name: _words(found[name], name) for name in shape - {"prompt"}}
    for name, words in others.items():
        if isinstance(words, str) != isinstance(prompt, str):
            raise ValueError(f"prompt and {name} are both text or both messages")
        if not isinstance(words, str) and words and words[0]["role"] not in ("assistant", "model"):
            raise ValueError(f"{name}[0] has role {words[0]['role']!r}; an answer is assistant's")
    if "completion" not in shape:
        prompt = _bare(prompt)
        others = {name: _bare(words) for name, words in others.items()}
        for words in others.values() or [()]:
            _check(prompt, words)
        return PreferenceRow(prompt, **others) if others else PromptRow(prompt)
    completion = others["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        _check_answer(completion, "completion")
        return CompletionRow(prompt, completion, cut)
    assert not isinstance(prompt, str) and not isinstance(completion, str)
    return _conversation((*prompt, *completion), len(prompt), cut)


def words_of(example: Example) -> str:
    """Return all that an example says, its parts on lines of their own: what it is known by."""
    parts: list[Words]
    if isinstance(example, TextRow):
        return example.text
    if isinstance(example, ConversationRow):
        parts = [example.messages]
    elif isinstance(example, CompletionRow):
        parts = [example.prompt, example.completion]
    elif isinstance(example, PreferenceRow):
        parts = [example.prompt, example.chosen, example.rejected]
    else:
        parts = [example.prompt]
    return "\n".join(said_of(part) for part in parts)


def said_of(words: Words) -> str:
    """Return a prompt or an answer as text, messages on lines of their own."""
    return words if isinstance(words, str) else "\n".join(m["content"] for m in words)


def learned_words(example: Example) -> str:
    """Return what of an example is learned: its text, completion or answers, one after another."""
    if isinstance(example, ConversationRow):
        learned = example.messages[example.first :]
        return "".join(m["content"].strip() for m in learned if m["role"] == "assistant")
    return example.completion if isinstance(example, CompletionRow) else words_of(example)


def _wrong_shape(row: Mapping[str, Any], shape: set[str]) -> str:
    names = ", ".join(" + ".join(columns) for columns in _SHAPES)
    if not shape:
        return f"columns are {shown(list(row))}; a row has one of: {names}"
    return (
        f"has {', '.join(sorted(shape))}; a row has one of: {names} (columns = [...] in"
        " [[data.source]] says which to read)"
    )


def _is_cut(row: Mapping[str, Any]) -> bool:
    reason = row.get("finish_reason")
    if reason is not None and not isinstance(reason, str):
        raise ValueError(f"finish_reason is text, not {shown(reason)}")
    return reason in _CUT


def _conversation(messages: tuple[Message, ...], first: int, cut: bool) -> ConversationRow:
    cuts = [number for number, message in enumerate(messages) if _is_cut(message)]
    bare = _bare(messages)
    assert not isinstance(bare, str)
    checked_messages(bare)
    answers = [n for n, m in enumerate(bare) if m["role"] == "assistant" and n >= first]
    for number in answers:
        _check_answer(bare[number]["content"], f"messages[{number}]")
    if cuts and cuts != answers[-1:]:
        raise ValueError(
            f"messages[{cuts[0]}] was cut by length, and the conversation goes on after it"
        )
    return ConversationRow(bare, first, cut or bool(cuts))


def _bare(words: Words) -> Words:
    """Return messages without what only says how they ended."""
    if isinstance(words, str):
        return words
    return tuple({"role": m["role"], "content": m["content"]} for m in words)


def _check(prompt: Words, words: Words) -> None:
    if not isinstance(prompt, str) and not isinstance(words, str):
        checked_messages([*prompt, *words])


def _check_answer(text: str, where: str) -> None:
    if not text.strip():
        raise ValueError(f"{where} is an empty answer")


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is text, not {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} holds a lone surrogate, U+{ord(value[error.start]):04X}, at character"
            f" {error.start}"
        ) from None
    return value


def _words(value: object, name: str) -> Words:
    if isinstance(value, str):
        return _text(value, name)
    if isinstance(value, Sequence) and not value:
        raise ValueError(f"{name} is an empty list")
    return _messages(value, name)


def _messages(value: object, name: str) -> tuple[Message, ...]:
    """Return messages of role and content, contents as one text; their order is not looked at."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise ValueError(f"{name} is a list of messages, not {shown(value)}")
    messages = []
    for number, message in enumerate(value):
        where = f"{name}[{number}]"
        if not isinstance(message, Mapping):
            raise ValueError(f"{where} is an object with role and content, not {shown(message)}")
        kept = {key: message[key] for key in message if message[key] is not None}
        for key in kept:
            if key not in ("role", "content", "name", "finish_reason"):
                raise ValueError(f"{where} has {shown(key)}; a message has role and content")
        content = kept.get("content")
        if isinstance(content, Sequence) and not isinstance(content, (str, bytes)):
            content = "".join(_part(part, where) for part in content)
        role = kept.get("role")
        if not isinstance(role, str):
            raise ValueError(f"{where} has role {shown(role)}; a role is text")
        role = "assistant" if role == "model" else role
        text = _text(content, f"{where}.content")
        messages.append({"role": role, "content": text, "finish_reason": kept.get("finish_reason")})
    return tuple(messages)


def _part(part: object, where: str) -> str:
    kept = dict(part) if isinstance(part, Mapping) else {}
    if kept.get("type") != "text" or not isinstance(kept.get("text"), str):
        raise ValueError(f'{where} holds {shown(part)}; what is read is {{"type": "text", ...}}')
    return kept["text"]
