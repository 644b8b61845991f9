"""/v1/embeddings: the answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec


class Vector(msgspec.Struct, kw_only=True):
    """A text's vector; a string is its float32 numbers, lowest byte first, in base64."""

    index: int
    embedding: list[float] | str  # or the same as JSON, where it is written already
    object: Literal["embedding"] = "embedding"


class EmbeddingsUsage(msgspec.Struct, kw_only=True):
    """What was read, in tokens."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(msgspec.Struct, kw_only=True):
    """The answer of /v1/embeddings, vectors in the order of the texts."""

    model: str
    data: list[Vector]
    usage: EmbeddingsUsage
    object: Literal["list"] = "list"


def embeddings(model: str, written: Iterable[bytes], tokens: int) -> Embeddings:
    """Make the answer. written: the JSON of each vector. tokens: of all texts."""
    vectors: Iterable[Any] = map(msgspec.Raw, written)
    return Embeddings(
        model=model,
        data=[Vector(index=n, embedding=vector) for n, vector in enumerate(vectors)],
        usage=EmbeddingsUsage(prompt_tokens=tokens, total_tokens=tokens),
    )
