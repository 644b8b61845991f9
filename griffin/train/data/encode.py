"""Examples as ids, and which of them are targets of the loss."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from griffin.text import Chat, Tokenizer, lesson
from griffin.train.data.document import understand
from griffin.train.data.example import (
    CompletionRow,
    ConversationRow,
    Example,
    PreferenceRow,
    PromptRow,
    TextRow,
    Words,
    learned_words,
)
from griffin.train.data.source import RecordBlock

if TYPE_CHECKING:  # what works on blocks needs no model, nor torch
    from griffin.train.recipe import Reads


@dataclass(frozen=True)
class Encoded:
    """Hold one document.

    ids:     (n,) int64, <bos> first.
    counted: (n,) bool, which of them the model is to predict; never <bos>.
    size:    bytes of the text that is counted.
    """

    ids: np.ndarray
    counted: np.ndarray
    size: int

    @classmethod
    def whole(cls, ids: np.ndarray, size: int = 0) -> Encoded:
        """Return a document in which everything behind <bos> is counted."""
        return cls(ids, np.arange(len(ids)) > 0, size)


class Encoder:
    """Turn examples into ids with one tokenizer, and with its chat turns where there are any."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def open(cls, folder: Path) -> Encoder:
        """Open the tokenizer in a folder; errors as of `Tokenizer.open`."""
        return cls(Tokenizer.open(folder))

    def encode(self, example: Example) -> Encoded:
        """Return an example's ids; control tokens in its text stay text.

        Text goes from <bos> to <eos>, and all of it is counted; so is a completion with its <eos>.
        Of a conversation the answers are, each with what ends it; what follows the last is left
        out. A prompt is what an answer is drawn after, the opening of the answer's turn included,
        and nothing of it is counted. Raises ValueError for a pair (`encode_pair`), and as `Chat`
        and `lesson` do.
        """
        eos, encode = self.tokenizer.eos_id, self.tokenizer.encode
        if isinstance(example, TextRow):
            parts = [(encode("")), [*encode(example.text, bos=False), eos]]
        elif isinstance(example, CompletionRow):
            answer = encode(example.completion, bos=False)
            parts = [encode(example.prompt), answer if example.cut else [*answer, eos]]
        elif isinstance(example, ConversationRow):
            return self._conversation(example)
        elif isinstance(example, PromptRow):
            words = example.prompt
            parts = [encode(words) if isinstance(words, str) else self._chat.ids(words), []]
            return Encoded(np.asarray(parts[0], dtype=np.int64), np.zeros(len(parts[0]), bool), 0)
        else:
            raise ValueError("a pair is two documents")
        ids = np.asarray(parts[0] + parts[1], dtype=np.int64)
        return Encoded(
            ids, np.arange(len(ids)) >= len(parts[0]), len(learned_words(example).encode())
        )

    def encode_pair(self, example: PreferenceRow) -> tuple[Encoded, Encoded]:
        """Return the ids of the prompt with the chosen answer, and with the rejected one.

        Of each the answer is counted, with what ends it. Raises ValueError as `encode` does.
        """
        chosen, rejected = (
            self._answered(example.prompt, each) for each in (example.chosen, example.rejected)
        )
        if not (chosen.counted.any() and rejected.counted.any()):
            raise ValueError("chosen or rejected is an empty answer")
        return chosen, rejected

    def _answered(self, prompt: Words, answer: Words) -> Encoded:
        if isinstance(prompt, str) and isinstance(answer, str):
            return self.encode(CompletionRow(prompt, answer))
        assert not isinstance(prompt, str) and not isinstance(answer, str)
        return self.encode(ConversationRow((*prompt, *answer), len(prompt)))

    def check_chat(self) -> None:
        """Raise ValueError if the tokenizer knows no turns of a chat."""
        assert self._chat is not None

    @cached_property
    def _chat(self) -> Chat:
        return Chat(self.tokenizer)

    def _conversation(self, example: ConversationRow) -> Encoded:
        parts = lesson(self._chat, example.messages, example.first, example.cut)
        lengths = [len(ids) for ids, _ in parts]
        return Encoded(
            np.asarray([id for ids, _ in parts for id in ids], dtype=np.int64),
            np.repeat([counted for _, counted in parts], lengths),
            len(learned_words(example).encode()),
        )


@dataclass(frozen=True)
class EncodedBlock:
    """A block encoded: its documents by side, those that could not be, bytes that it read; and of
    prompts the rows that they stand in, as lines of JSON."""

    source: int
    documents: tuple[list[tuple[str, Encoded]], list[tuple[str, Encoded]]]
    bad: list[tuple[str, str]]
    size: int
    rows: tuple[list[bytes], list[bytes]] = field(default_factory=lambda: ([], []))


@dataclass(frozen=True)
class EncodeBlocks:
    """Encode a block. folder: of the tokenizer; most: bytes of a document; reads: what rows say.

    A pair becomes two documents, the chosen answer's and the rejected one's behind it.
    """

    folder: Path
    most: int
    reads: Reads = "answers"

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder.open(self.folder)

    def __call__(self, given: tuple[RecordBlock, np.ndarray]) -> EncodedBlock:
        block, held = given
        done = EncodedBlock(block.source, ([], []), [], block.size)
        documents = understand(block, self.most, self.reads).documents
        if len(documents) != len(held):
            raise ValueError(f"{block.records[0].name} has changed while it was read; begin anew")
        for document, out in zip(documents, held.tolist(), strict=True):
            example, name = document.example, document.name
            if _has_messages(example):
                self.encoder.check_chat()
            try:
                if isinstance(example, PreferenceRow):
                    names = f"{name}/chosen", f"{name}/rejected"
                    encoded = zip(names, self.encoder.encode_pair(example), strict=True)
                else:
                    encoded = [(name, self.encoder.encode(example))]
            except ValueError as error:
                done.bad.append((name, str(error)))
                continue
            done.documents[out].extend(encoded)
            if document.row is not None:
                # What JSON has no word for, a date of a table say, is what it prints as.
                done.rows[out].append(json.dumps(document.row, default=str).encode() + b"\n")
        return done


def _has_messages(example: Example) -> bool:
    if isinstance(example, PreferenceRow | PromptRow):
        return not isinstance(example.prompt, str)
    return isinstance(example, ConversationRow)
