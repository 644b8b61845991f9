"""Records understood: the documents in them, what is wrong with the others, what is left out."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from griffin.foreign import parse_json
from griffin.train.data.example import (
    CompletionRow,
    ConversationRow,
    Example,
    PreferenceRow,
    PromptRow,
    TextRow,
    read_example,
    said_of,
    words_of,
)
from griffin.train.data.files import RawRecord, cut_text
from griffin.train.data.source import RecordBlock

if TYPE_CHECKING:  # what works on blocks needs no model, nor torch
    from griffin.train.recipe import Reads

# What each kind of row says, and who learns from it; and what is read instead.
_SAYS = {
    TextRow: "text is for training and tune.method 'full', 'lora' or 'state'",
    ConversationRow: "messages are for training and tune.method 'full', 'lora' or 'state'",
    CompletionRow: "a completion is for training and tune.method 'full', 'lora' or 'state'",
    PreferenceRow: "chosen and rejected is for tune.method 'dpo'",
    PromptRow: "a prompt alone is for tune.method 'jbond', 'grpo' or 'rloo'",
}
_READ = {
    "answers": "text, messages, or prompt and completion are read here",
    "pairs": "prompt, chosen and rejected are read here",
    "prompts": "prompts are read here, in rows that say no more, or of which columns = ['prompt']"
    " in [[data.source]] says to read no more",
}


class NamedExample(NamedTuple):
    """Hold one document. name: where it stands. known_by: what its fate depends on, the name of a
    file and the content of a row; of prompts and pairs the prompt. row: all columns of a prompt's,
    which a reward may ask for."""

    name: str
    example: Example
    known_by: bytes
    row: dict[str, Any] | None = None


@dataclass
class Understood:
    """Hold what is in a block.

    bad:     (name, reason) of records that cannot be read.
    refused: the same of the first that says something else than is wanted.
    left:    how many were left out, by reason.
    cut:     how many were too long and became several documents.
    """

    documents: list[NamedExample] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    refused: tuple[str, str] | None = None
    left: Counter[str] = field(default_factory=Counter)
    cut: int = 0


def understand(block: RecordBlock, most: int, reads: Reads = "answers") -> Understood:
    """Return what is in a block.

    most: bytes of a document; longer texts become several. reads: what rows must say.
    """
    found = Understood()
    for record in block.records:
        if record.kind == "text":
            if reads == "answers":
                _text(record, found)
            else:
                found.refused = found.refused or (record.name, _refusal(TextRow, reads))
            continue
        try:
            row = _row(record)
            example = read_example(row, block.columns)
        except ValueError as error:
            found.bad.append((record.name, str(error)))
            continue
        if _read_by(example) != reads:
            found.refused = found.refused or (record.name, _refusal(type(example), reads))
        elif isinstance(example, PreferenceRow):
            if example.chosen == example.rejected:
                found.left["whose two answers are equal"] += 1
            else:
                known_by = said_of(example.prompt).encode()
                found.documents.append(NamedExample(record.name, example, known_by))
        elif isinstance(example, PromptRow):
            known_by = said_of(example.prompt).encode()
            found.documents.append(NamedExample(record.name, example, known_by, row))
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


def _read_by(example: Example) -> Reads:
    if isinstance(example, PreferenceRow):
        return "pairs"
    return "prompts" if isinstance(example, PromptRow) else "answers"


def _refusal(kind: type[Example], reads: Reads) -> str:
    return f"{_SAYS[kind]}; {_READ[reads]}"


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
