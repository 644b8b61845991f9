"""Examples as ids, and which of them are targets of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from griffin.text import Chat, Tokenizer, lesson
from griffin.train.data.example import CompletionRow, ConversationRow, Example, TextRow


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
            said = example.text
        elif isinstance(example, CompletionRow):
            answer = encode(example.completion, bos=False)
            parts = [encode(example.prompt), answer if example.cut else [*answer, eos]]
            said = example.completion
        elif isinstance(example, ConversationRow):
            return self._conversation(example)
        else:
            raise ValueError(f"{type(example).__name__} is for tuning")
        ids = np.asarray(parts[0] + parts[1], dtype=np.int64)
        return Encoded(ids, np.arange(len(ids)) >= len(parts[0]), len(said.encode()))

    @cached_property
    def _chat(self) -> Chat:
        return Chat(self.tokenizer)

    def _conversation(self, example: ConversationRow) -> Encoded:
        parts = lesson(self._chat, example.messages, example.first, example.cut)
        lengths = [len(ids) for ids, _ in parts]
        learned = [
            message["content"]
            for message in example.messages[example.first :]
            if message["role"] == "assistant"
        ]
        return Encoded(
            np.asarray([id for ids, _ in parts for id in ids], dtype=np.int64),
            np.repeat([counted for _, counted in parts], lengths),
            sum(len(text.strip().encode()) for text in learned),
        )
