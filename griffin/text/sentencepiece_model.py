"""Kaggle's `tokenizer.model`, through the sentencepiece library (an extra)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from griffin.text.special_tokens import SpecialTokens
from griffin.text.vocabulary import CONTROL_NAMES, Vocabulary

# SentencePiece.Type in sentencepiece_model.proto
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6


def open_sentencepiece(
    path: Path, special: SpecialTokens
) -> tuple[Vocabulary, Callable[[str], list[int]], dict[str, str]]:
    """Read a sentencepiece model.

    Returns the vocabulary, a function from text to ids that can give no control id, and the roles
    the file itself tells ({"bos": piece, ...}).
    Raises ValueError naming the file if it is no such model, ImportError if the extra is missing.

    How the guarantee is made: Gemma's turn tokens are "user defined" in the file, which the library
    finds in plain text. In the copy that goes to the library they are of type "control", which it
    never finds there.
    """
    try:
        import sentencepiece
    except ImportError as error:
        raise ImportError(
            f"{path} needs sentencepiece: pip install 'griffin-lm[kaggle]' (or use tokenizer.json)"
        ) from error
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    known = CONTROL_NAMES | special.extra | set(special.names.values())
    pieces: list[str | None] = []
    control: set[int] = set()
    byte_values: dict[int, int] = {}
    safe = bytearray()
    try:
        for number, whole, value in _fields(content):
            if number != 1:
                safe += whole
                continue
            piece, kind = _piece(value)
            id = len(pieces)
            pieces.append(piece)
            if kind == _BYTE:
                byte_values[id] = int(piece[3:5], 16)
            if kind in (_UNKNOWN, _CONTROL) or piece in known:
                control.add(id)
            if kind == _USER_DEFINED and piece in known:
                value = value + b"\x18" + bytes((_CONTROL,))  # field 3 again: the last one counts
                whole = b"\x0a" + _varint_bytes(len(value)) + value
            safe += whole
    except (IndexError, ValueError) as error:
        raise ValueError(
            f"{path}: not a sentencepiece model, or cut off ({error}); fetch it again"
        ) from error
    processor: Any = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(bytes(safe))
    except RuntimeError as error:
        raise ValueError(f"{path}: the sentencepiece library refuses it ({error})") from error
    if processor.get_piece_size() != len(pieces) or not pieces:
        raise ValueError(
            f"{path}: holds {len(pieces)} pieces, the library sees {processor.get_piece_size()}"
        )

    def encode(text: str) -> list[int]:
        return processor.encode(text, out_type=int)

    roles: dict[str, str] = {}
    for role in ("bos", "eos", "pad", "unk"):
        id = getattr(processor, f"{role}_id")()
        if id >= 0 and (piece := pieces[id]) is not None:
            roles[role] = piece
    return Vocabulary(pieces, frozenset(control), byte_values), encode, roles


def _piece(message: bytes) -> tuple[str, int]:
    text, kind = "", _NORMAL
    for number, whole, value in _fields(message):
        if number == 1:
            text = value.decode("utf-8")
        elif number == 3:
            kind = _varint(whole, 1)[0]
    return text, kind


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield (field number, the field's bytes with its tag, the content of a length-delimited
    field)."""
    at = 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        wire = tag & 7
        value = b""
        if wire == 0:
            _, at = _varint(message, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            size, at = _varint(message, at)
            value = message[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {wire} at byte {start}")
        if at > len(message):
            raise ValueError(
                f"field at byte {start} reaches {at - len(message)} bytes beyond the end"
            )
        yield tag >> 3, message[start:at], value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"number of more than 64 bits at byte {at}")


def _varint_bytes(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
