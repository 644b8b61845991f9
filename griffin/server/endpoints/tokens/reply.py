"""/tokenize, /detokenize, /apply-template and /tokenizer_info: the answers."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Tokens(msgspec.Struct, kw_only=True):
    """POST /tokenize. token_strs: only if asked for. max_model_len: null, for a state has no
    end."""

    tokens: list[int]
    count: int
    max_model_len: None = None
    token_strs: list[str] | None = None


class Text(msgspec.Struct, kw_only=True):
    """POST /detokenize: the text, under the names that vLLM and llama.cpp give it."""

    prompt: str
    content: str


class Rendered(msgspec.Struct, kw_only=True):
    """POST /apply-template: the text that the model reads, control tokens by their names."""

    prompt: str


class TokenizerInfo(msgspec.Struct, kw_only=True):
    """GET /tokenizer_info, as vLLM has it: the tokens that mean something, by their names.

    A null is one that the tokenizer lacks. chat_template: the checkpoint's own, if it has one.
    """

    bos_token: str
    eos_token: str
    pad_token: str | None
    unk_token: str | None
    chat_template: str | None
    vocab_size: int
    tokenizer_class: str = "griffin.text.Tokenizer"
    model_max_length: None = None


def tokens(ids: Sequence[int], pieces: Sequence[str] | None = None) -> Tokens:
    """Make the answer of /tokenize."""
    return Tokens(
        tokens=list(ids), count=len(ids), token_strs=None if pieces is None else list(pieces)
    )
