"""What the ids of a tokenizer mean: the same table whichever file it was read from."""

import hashlib
from collections.abc import Mapping, Sequence

SPACE = "▁"  # U+2581: how Gemma's files write a space inside a piece

# Gemma's names. They are control tokens even where a file forgets to mark them as special.
CONTROL_NAMES = frozenset(
    {"<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"},
)


class Vocabulary:
    """The pieces of a tokenizer by id; which are control tokens, and which single bytes.

    pieces: by id; None where the file leaves a hole. byte_values: id -> 0..255 for the
            byte-fallback pieces.
    marked_spaces: pieces write a space as U+2581, Gemma's way; else as itself.
    """

    def __init__(
        self,
        pieces: Sequence[str | None],
        control_ids: frozenset[int],
        byte_values: Mapping[int, int],
        marked_spaces: bool = True,
    ) -> None:
        self.pieces = tuple(pieces)
        self.control_ids = control_ids
        self._byte_values = dict(byte_values)
        self._marked_spaces = marked_spaces
        self.control: dict[str, int] = {}
        for id in sorted(control_ids):
            piece = self.pieces[id]
            assert piece is not None, "a control id is chosen by its piece"
            self.control.setdefault(piece, id)

    def __len__(self) -> int:
        return len(self.pieces)

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes that token `id` stands for; a control token's are those of its name.

        A byte-fallback piece is one byte, so a single token's bytes need not be valid UTF-8.
        Raises ValueError for an id outside the vocabulary.
        """
        if not 0 <= id < len(self.pieces) or (piece := self.pieces[id]) is None:
            raise ValueError(
                f"id {id} is not in this tokenizer, whose ids are 0 to {len(self.pieces) - 1}"
            )
        if id in self.control_ids:
            return piece.encode("utf-8")
        value = self._byte_values.get(id)
        if value is not None:
            return bytes((value,))
        return (piece.replace(SPACE, " ") if self._marked_spaces else piece).encode("utf-8")

    def digest(self) -> str:
        """Hash what every id means (SHA-256, hex): equal for a `tokenizer.json` and its
        `tokenizer.model`."""
        hasher = hashlib.sha256(b"griffin vocabulary 1")
        for id, piece in enumerate(self.pieces):
            meaning = b"" if piece is None else self.token_bytes(id)
            kind = b"-" if piece is None else b"c" if id in self.control_ids else b"t"
            hasher.update(kind + len(meaning).to_bytes(4, "little") + meaning)
        return hasher.hexdigest()


class TextTooLong(ValueError):
    """A text of more tokens than are taken."""


def check_count(count: int, most: int | None) -> None:
    """Raise TextTooLong for more tokens than are taken. most: None is any number."""
    if most is not None and count > most:
        raise TextTooLong(f"the text has {count} tokens or more; at most {most} are taken")
