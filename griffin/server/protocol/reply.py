"""What every answer is made of: ids, the head, usage, tokens with their log-probabilities."""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType, structs

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]

LEAST_LOGPROB = -9999.0  # JSON has no infinity

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

encode = msgspec.json.Encoder().encode


def new_id(prefix: str) -> str:
    """Make an id that nobody can guess: new_id("chatcmpl-"), "resp_", "msg_", "call_", "req_"."""
    return prefix + secrets.token_hex(16)


def request_id(asked: str | None) -> str:
    """Return the client's X-Request-Id if it is harmless in a header and a log line, else a new
    one."""
    return asked if asked is not None and _REQUEST_ID.fullmatch(asked) else new_id("req_")


def fingerprint(*parts: str) -> str:
    """Return a system_fingerprint: it changes when any part (weights, quantization, version, ...)
    does."""
    joined = "\0".join(f"{len(part)}:{part}" for part in parts)
    return "fp_" + hashlib.sha256(joined.encode("utf-8", "replace")).hexdigest()[:12]


class Head(NamedTuple):
    """What all parts of one answer share. created: seconds since 1970."""

    id: str
    created: int
    model: str
    system_fingerprint: str

    @classmethod
    def new(cls, prefix: str, model: str, system_fingerprint: str) -> Head:
        """Begin an answer now, under a new id."""
        return cls(new_id(prefix), int(time.time()), model, system_fingerprint)


class PromptDetails(msgspec.Struct, kw_only=True):
    """Tokens of the prompt that were not read again, and those that were and are kept."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class CompletionDetails(msgspec.Struct, kw_only=True):
    """Tokens that were guessed and read ahead: those that were chosen, and the others."""

    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class Usage(msgspec.Struct, kw_only=True):
    """What an answer cost, in tokens. Make one with `usage`."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails = msgspec.field(default_factory=CompletionDetails)

    def after(self, completion: int) -> Usage:
        """Return the same for so many tokens of answers."""
        total = self.prompt_tokens + completion
        return structs.replace(self, completion_tokens=completion, total_tokens=total)


def usage(
    prompt: int,
    completion: int,
    cached: int = 0,
    written: int = 0,
    drafts: tuple[int, int] = (0, 0),
) -> Usage:
    """Count an answer's tokens. prompt: of all prompts, cached ones included. completion: of all
    choices. drafts: those that were chosen, and those that were not."""
    details = PromptDetails(cached_tokens=cached, cache_write_tokens=written)
    accepted, rejected = drafts
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=details,
        completion_tokens_details=CompletionDetails(
            accepted_prediction_tokens=accepted, rejected_prediction_tokens=rejected
        ),
    )


class Extras(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What only this server tells, under the key `griffin`; what is not known is left out.

    state:              where the answer went on from. why: why no more of the prompt was reused.
    session:            the session it belongs to now. seeds: one a choice, to ask for the same
                        again.
    state_bytes:        the size of the state behind it.
    tokens_per_second:  of generated text, after its first token.
    queue_seconds, prompt_seconds: before the first token: waiting, and reading.
    state_data:         the state after the answer, a state file in base64, if it was asked for.
    """

    state: Literal["session", "prefix", "none"] | UnsetType = UNSET
    why: str | UnsetType = UNSET
    session: str | UnsetType = UNSET
    seeds: list[int] | UnsetType = UNSET
    state_bytes: int | UnsetType = UNSET
    tokens_per_second: float | UnsetType = UNSET
    queue_seconds: float | UnsetType = UNSET
    prompt_seconds: float | UnsetType = UNSET
    state_data: str | UnsetType = UNSET


class Candidate(NamedTuple):
    """A token that could have been: its text, its exact bytes, its log-probability."""

    text: str
    bytes: bytes
    logprob: float


class Scored(NamedTuple):
    """A token of a prompt or an answer.

    text, bytes: as displayed, and exactly. logprob: None for a prompt's first token, which nothing
                 precedes.
    alternatives: the most probable tokens there, best first. offset: where its text begins among
                  the answer's
    (and, with echo, the prompt's) characters; only /v1/completions tells it.
    """

    text: str
    bytes: bytes
    logprob: float | None
    alternatives: Sequence[Candidate] = ()
    offset: int = 0


class Deleted(msgspec.Struct, kw_only=True):
    """Something is gone. object: what it was, "session.deleted", "state.deleted", "response"."""

    id: str
    object: str
    deleted: bool = True


class TopLogprob(msgspec.Struct, kw_only=True):
    """One of the most probable tokens at a place."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(msgspec.Struct, kw_only=True):
    """A token of an answer with its log-probability."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


def clamp(logprob: float | None) -> float:
    """Return a number that JSON has: -9999 for minus infinity, for NaN and for anything below."""
    if logprob is None or math.isnan(logprob):
        return LEAST_LOGPROB
    return min(max(float(logprob), LEAST_LOGPROB), 0.0)


def token_logprobs(tokens: Iterable[Scored]) -> list[TokenLogprob]:
    """Return tokens as chats and responses show them."""
    return [
        TokenLogprob(
            token=token.text,
            logprob=clamp(token.logprob),
            bytes=list(token.bytes),
            top_logprobs=[
                TopLogprob(token=other.text, logprob=clamp(other.logprob), bytes=list(other.bytes))
                for other in token.alternatives
            ],
        )
        for token in tokens
    ]


def plain(value: Any) -> Any:
    """Return a Struct as plain values, what is unset left out."""
    return msgspec.to_builtins(value)
