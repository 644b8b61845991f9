"""Records understood: the documents in them, what is wrong with the others, what is left out."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from griffin.foreign import parse_json
from griffin.train.data.example import (
    ConversationRow,
    Example,
    PreferenceRow,
    PromptRow,
    TextRow,
    read_example,
    words_of,
)
from griffin.train.data.files import RawRecord, cut_text
from griffin.train.data.source import RecordBlock


class NamedExample(NamedTuple):
    """Hold one document. name: where it stands. known_by: what its fate depends on, the name of a
    file and the content of a row."""

    name: str
    example: Example
    known_by: bytes


@dataclass
class Understood:
    """Hold what is in a block.

    bad:     (name, reason) of records that cannot be read.
    refused: the same of the first that pre-training cannot use.
    left:    how many were left out, by reason.
    cut:     how many were too long and became several documents.
    """

    documents: list[NamedExample] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    refused: tuple[str, str] | None = None
    left: Counter[str] = field(default_factory=Counter)
    cut: int = 0


def understand(block: RecordBlock, most: int) -> Understood:
    """Return what is in a block. most: bytes of a document; longer texts become several."""
    found = Understood()
    for record in block.records:
        if record.kind == "text":
            _text(record, found)
            continue
        try:
            example = read_example(_row(record), block.columns)
        except ValueError as error:
            found.bad.append((record.name, str(error)))
            continue
        if isinstance(example, PreferenceRow | PromptRow):
            shape = "a prompt alone" if isinstance(example, PromptRow) else "chosen and rejected"
            reason = (
                f"{shape} is for tuning; training reads text, messages, or prompt and completion"
            )
            found.refused = found.refused or (record.name, reason)
        elif isinstance(example, ConversationRow) and not _answers(example):
            found.left["without an answer to learn"] += 1
        elif isinstance(example, TextRow):
            if not example.text:
                found.left["empty"] += 1
            pieces = _pieces(record.name, example.text, most)
            found.documents += pieces
            found.cut += len(pieces) > 1
        else:
            found.documents.append(NamedExample(record.name, example, words_of(example).encode()))
    return found


def _row(record: RawRecord) -> Any:
    if record.kind == "bad":
        raise ValueError(record.content)
    if record.kind == "row":
        return record.content
    assert isinstance(record.content, bytes)
    return parse_json(record.content, "the line", finite=True)


def _text(record: RawRecord, found: Understood) -> None:
    assert isinstance(record.content, bytes)
    found.cut += record.name.endswith("#0")
    try:
        text = record.content.decode("utf-8")
    except UnicodeDecodeError:
        found.left["not UTF-8"] += 1
        return
    if not text:
        found.left["empty"] += 1
    elif "\0" in text:
        found.left["with NUL bytes"] += 1
    else:
        found.documents.append(NamedExample(record.name, TextRow(text), record.name.encode()))


def _pieces(name: str, text: str, most: int) -> list[NamedExample]:
    content = text.encode()
    if len(content) <= most:
        return [NamedExample(name, TextRow(text), content)] if content else []
    return [
        NamedExample(f"{name}#{number}", TextRow(piece.decode()), piece)
        for number, piece in enumerate(cut_text(io.BytesIO(content), most))
    ]


def _answers(example: ConversationRow) -> bool:
    return any(message["role"] == "assistant" for message in example.messages[example.first :])
