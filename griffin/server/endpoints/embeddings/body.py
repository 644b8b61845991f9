"""/v1/embeddings: the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from griffin.server.errors import INVALID, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.body import read_body
from griffin.server.protocol.bounds import Count, ModelName
from griffin.server.protocol.policy import HARMLESS, Policy, Refusal
from griffin.server.protocol.prompts import Prompt, Prompts, read_prompts

_WHOLE = Refusal("texts are read whole; send the part that matters", (-1,))

POLICY = Policy(
    ignored=HARMLESS,
    refused={
        "messages": Refusal("render them with /apply-template, and send the text as input"),
        "normalize": Refusal("vectors have length 1", (True,)),
        "truncate_prompt_tokens": _WHOLE,
        "add_special_tokens": Refusal("BOS is put before a string; send ids", (True,)),
    },
)


class EmbeddingsBody(msgspec.Struct, kw_only=True):
    """The body of POST /v1/embeddings.

    dimensions: how many of a vector's first numbers to give; it has length 1 all the same.
    pooling:    the mean of the hidden states, which is the default, or the last one.
    """

    input: Prompts
    model: ModelName | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    pooling: Literal["mean", "last"] | None = None


@dataclass(frozen=True, kw_only=True)
class EmbeddingsRequest:
    """Texts that are ready to be read. base64: vectors as float32, lowest byte first, in base64."""

    model: str | None
    input: tuple[Prompt, ...]
    base64: bool
    dimensions: int | None
    pooling: Literal["mean", "last"]
    ignored: tuple[str, ...]


def parse_embeddings(body: bytes, limits: Limits) -> EmbeddingsRequest:
    """Read the body of POST /v1/embeddings; ApiError for anything that cannot be done as asked."""
    read, ignored = read_body(body, EmbeddingsBody, POLICY, limits)
    return EmbeddingsRequest(
        model=read.model,
        input=read_texts(read.input, limits),
        base64=read.encoding_format == "base64",
        dimensions=read.dimensions,
        pooling=read.pooling or "mean",
        ignored=ignored,
    )


def read_texts(
    texts: str | list[str | int | list[int]], limits: Limits, param: str = "input"
) -> tuple[Prompt, ...]:
    """Return texts that are to become vectors; ApiError for one that is empty."""
    read = read_prompts(texts, limits, param, "max_inputs")
    if "" in read:
        place = param if isinstance(texts, str) else f"{param}[{read.index('')}]"
        raise ApiError(INVALID, f"{place} is an empty string; it has no vector", place)
    return read
