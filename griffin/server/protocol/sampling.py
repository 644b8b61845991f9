"""What every generating endpoint shares: how tokens are chosen, and what the prompt goes on
from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from griffin.server.errors import INVALID, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.bounds import (
    CacheKey,
    CountOrZero,
    Name,
    TokenId,
    check_ids,
    check_most,
)
from griffin.server.protocol.structured import StructuredFields

_TOKEN = re.compile(r"0|[1-9][0-9]{0,9}")

Penalty = Annotated[float, Meta(ge=-2, le=2)]
# How many tokens to generate at most; -1: as many as the server gives.
MostOrZero = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
Most = Annotated[int, Meta(ge=-1, le=2**63 - 1, extra_json_schema={"not": {"const": 0}})]


class GeneratingBody(StructuredFields, kw_only=True):
    """Fields of any request that generates; null and absent are the same: the model's defaults.

    session_id: a session, made if there is none of that name. state: a saved state that the prompt
                follows.
    prompt_cache_key: passed over; the prefix cache finds what was read before by its ids.
    draft: tokens that are guessed and read in one call, as SamplingParams has it.
    n_predict, max_new_tokens: llama.cpp's and TGI's words for the most tokens to generate.
    """

    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[TokenId] | None = None
    min_tokens: CountOrZero | None = None
    ignore_eos: bool | None = None
    allowed_token_ids: Annotated[list[TokenId], Meta(min_length=1)] | None = None
    draft: Annotated[int, Meta(ge=0, le=15)] | None = None
    session_id: Name | None = None
    state: Name | None = None
    prompt_cache_key: CacheKey | None = None
    n_predict: MostOrZero | None = None
    max_new_tokens: MostOrZero | None = None


# Fields of GeneratingBody that the Limits bound, for the document.
SAMPLING_BOUNDS = {
    "logit_bias": "max_logit_bias",
    "stop": "max_stop",
    "stop_token_ids": "max_stop_ids",
    "allowed_token_ids": "max_logit_bias",
}


def sampling_arguments(body: GeneratingBody, limits: Limits) -> dict[str, Any]:
    """Return keyword arguments for griffin.sampling.SamplingParams, only those that the request
    sets.

    `top_p` 0 is the one most probable token, as elsewhere; `top_k` -1 keeps all, as elsewhere; a
    negative seed is the one that is equal modulo 2^63. Raises ApiError with `param` for what is
    over the limits.
    """
    arguments: dict[str, Any] = {}
    for name in (
        *("temperature", "min_p", "repetition_penalty"),
        *("presence_penalty", "frequency_penalty", "min_tokens", "ignore_eos", "draft"),
    ):
        if (value := getattr(body, name)) is not None:
            arguments[name] = value
    if body.top_k is not None:
        arguments["top_k"] = max(body.top_k, 0)
    if body.top_p == 0:
        arguments["top_k"] = 1
    elif body.top_p is not None:
        arguments["top_p"] = body.top_p
    if body.seed is not None:
        arguments["seed"] = body.seed % 2**63
    if body.logit_bias:
        arguments["logit_bias"] = _bias(body.logit_bias, limits)
    if body.stop:
        arguments["stop"] = read_stop(body.stop, limits)
    elif body.stop == "":
        raise ApiError(INVALID, "stop is an empty string; give some text, or leave it out", "stop")
    for name, ours in (("stop_token_ids", "stop_ids"), ("allowed_token_ids", "allowed_ids")):
        if ids := getattr(body, name):
            check_most(
                len(ids), f"{name} has {len(ids)} entries", limits, SAMPLING_BOUNDS[name], name
            )
            check_ids(ids, limits, name)
            arguments[ours] = tuple(ids)
    return arguments


def most_tokens(
    body: GeneratingBody,
    own: Mapping[str, int | None],
    limits: Limits,
    default: int,
    least: int = 1,
) -> tuple[int, tuple[str, ...]]:
    """Return how many tokens to generate at most, and the field that asked for more than the server
    gives, if one did.

    own: the endpoint's own fields. -1 is as many as the server gives. Raises ApiError for two
    fields that do not agree, and for less than `least` or `min_tokens`.
    """
    most, clamped = _most(body, own, limits, default, least)
    if (body.min_tokens or 0) > most:
        message = f"min_tokens is {body.min_tokens}, and an answer has {most} tokens at most"
        raise ApiError(INVALID, message, "min_tokens")
    return most, clamped


def _most(
    body: GeneratingBody,
    own: Mapping[str, int | None],
    limits: Limits,
    default: int,
    least: int,
) -> tuple[int, tuple[str, ...]]:
    asked = {**own, "n_predict": body.n_predict, "max_new_tokens": body.max_new_tokens}
    given = [(name, value) for name, value in asked.items() if value is not None]
    if not given:
        return min(default, limits.max_tokens), ()
    (name, most), *others = given
    for other, value in others:
        if value != most:
            raise ApiError(
                INVALID,
                f"{name} is {most} and {other} {value}; they mean the same, send one",
                name,
            )
    if most == -1:
        return limits.max_tokens, ()
    if most < least:
        message = f"{name} is {most}; expected a whole number of {least} or more, or -1"
        raise ApiError(INVALID, message, name)
    if most > limits.max_tokens:
        return limits.max_tokens, (name,)
    return most, ()


def _bias(bias: dict[str, float], limits: Limits) -> dict[int, float]:
    check_most(
        len(bias), f"logit_bias has {len(bias)} entries", limits, "max_logit_bias", "logit_bias"
    )
    for key in bias:
        if not _TOKEN.fullmatch(key) or int(key) >= limits.vocab_size:
            raise ApiError(
                INVALID,
                f"logit_bias has the key {key[:32]!r}; keys are token ids from 0 to"
                f" {limits.vocab_size - 1}",
                "logit_bias",
            )
    return {int(key): value for key, value in bias.items()}


def read_stop(stop: str | list[str], limits: Limits, param: str = "stop") -> tuple[str, ...]:
    """Return stop strings; ApiError for too many, and for one that is empty or too long."""
    texts = (stop,) if isinstance(stop, str) else tuple(stop)
    check_most(len(texts), f"{param} has {len(texts)} strings", limits, "max_stop", param)
    for index, text in enumerate(texts):
        where = param if isinstance(stop, str) else f"{param}[{index}]"
        if not text:
            raise ApiError(
                INVALID, f"{where} is an empty string; give some text, or leave it out", where
            )
        check_most(
            len(text), f"{where} has {len(text)} characters", limits, "max_stop_chars", where
        )
    return texts
