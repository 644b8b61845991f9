"""Examples as ids, and which of them are targets of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from griffin.text import Chat, Tokenizer, lesson
from griffin.train.data.document import understand
from griffin.train.data.example import (
    CompletionRow,
    ConversationRow,
    Example,
    TextRow,
    learned_words,
)
from griffin.train.data.source import RecordBlock


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
        out. Raises ValueError for what pre-training cannot use, and as `Chat` and `lesson` do.
        """
        eos, encode = self.tokenizer.eos_id, self.tokenizer.encode
        if isinstance(example, TextRow):
            parts = [(encode("")), [*encode(example.text, bos=False), eos]]
        elif isinstance(example, CompletionRow):
            answer = encode(example.completion, bos=False)
            parts = [encode(example.prompt), answer if example.cut else [*answer, eos]]
        elif isinstance(example, ConversationRow):
            return self._conversation(example)
        else:
            raise ValueError(f"{type(example).__name__} is for tuning")
        ids = np.asarray(parts[0] + parts[1], dtype=np.int64)
        return Encoded(
            ids, np.arange(len(ids)) >= len(parts[0]), len(learned_words(example).encode())
        )

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
    """A block encoded: its documents by side, those that could not be, bytes that it read."""

    source: int
    documents: tuple[list[tuple[str, Encoded]], list[tuple[str, Encoded]]]
    bad: list[tuple[str, str]]
    size: int


@dataclass(frozen=True)
class EncodeBlocks:
    """Encode a block. folder: of the tokenizer; most: bytes of a document."""

    folder: Path
    most: int

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder.open(self.folder)

    def __call__(self, given: tuple[RecordBlock, np.ndarray]) -> EncodedBlock:
        block, held = given
        done = EncodedBlock(block.source, ([], []), [], block.size)
        documents = understand(block, self.most).documents
        if len(documents) != len(held):
            raise ValueError(f"{block.records[0].name} has changed while it was read; begin anew")
        for document, out in zip(documents, held.tolist(), strict=True):
            if isinstance(document.example, ConversationRow):
                self.encoder.check_chat()
            try:
                encoded = self.encoder.encode(document.example)
            except ValueError as error:
                done.bad.append((document.name, str(error)))
                continue
            done.documents[out].append((document.name, encoded))
        return done
