"""What chats and completions tell beside their texts, in the words of vLLM and llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from griffin.server.errors import INVALID, UNSUPPORTED, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.bounds import CountOrZero, check_most
from griffin.server.protocol.sampling import GeneratingBody, Most


class StreamOptions(msgspec.Struct, kw_only=True):
    """`stream_options`: whether a last chunk tells the usage, and whether each does."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class TellingBody(GeneratingBody, kw_only=True):
    """Fields of chats and completions alike.

    return_token_ids: ids of the prompt and of each answer. return_tokens_as_token_ids: tokens with
    log-probabilities are called "token_id:5". prompt_logprobs: those of the prompt's tokens, with
    so many alternatives. truncate_prompt_tokens: read the last so many of the prompt alone, -1 is
    all. return_progress: how much of the prompt is read, in a stream.
    """

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    prompt_logprobs: CountOrZero | None = None
    truncate_prompt_tokens: Most | None = None
    return_progress: bool | None = None


TELLING_BOUNDS = {"prompt_logprobs": "max_logprobs"}


@dataclass(frozen=True, kw_only=True)
class Telling:
    """What is told beside the text.

    usage_so_far:    the cost, with each event of a stream.
    token_ids:       ids of prompt and answers. as_ids: tokens are called by their ids.
    prompt_logprobs: alternatives beside each token of the prompt; None: not even its own.
    progress:        events while the prompt is read.
    """

    usage_so_far: bool = False
    token_ids: bool = False
    as_ids: bool = False
    prompt_logprobs: int | None = None
    progress: bool = False


NOTHING = Telling()


def read_telling(body: TellingBody, limits: Limits) -> tuple[Telling, int | None]:
    """Return what a request wants to be told, and how many of the prompt's tokens are to be read,
    None for all. ApiError for what cannot be."""
    wanted = body.prompt_logprobs
    if wanted is not None:
        what = f"prompt_logprobs is {wanted}"
        check_most(wanted, what, limits, "max_logprobs", "prompt_logprobs")
        if body.stream:
            message = "prompt_logprobs come with a whole answer; leave stream out"
            raise ApiError(UNSUPPORTED, message, "prompt_logprobs")
    options = body.stream_options or StreamOptions()
    most = body.truncate_prompt_tokens
    if most == 0:
        message = "truncate_prompt_tokens is 0; expected 1 or more, or -1 for all of the prompt"
        raise ApiError(INVALID, message, "truncate_prompt_tokens")
    return Telling(
        usage_so_far=bool(options.continuous_usage_stats),
        token_ids=bool(body.return_token_ids),
        as_ids=bool(body.return_tokens_as_token_ids),
        prompt_logprobs=wanted,
        progress=bool(body.return_progress),
    ), None if most == -1 else most


class PromptLogprob(msgspec.Struct, kw_only=True):
    """What the model made of an id at a place of the prompt; rank 1 is the most probable."""

    logprob: float
    rank: int
    decoded_token: str


# By ids, the prompt's own first; null for the first token, which nothing precedes.
PromptLogprobs = list[dict[str, PromptLogprob] | None]


class PromptProgress(msgspec.Struct, kw_only=True):
    """How much of a prompt is read: `processed` of `total` tokens, `cache` of them read before."""

    total: int
    cache: int
    processed: int
    time_ms: int


def last_of(ids: Sequence[int], most: int | None, *, text: bool) -> Sequence[int]:
    """Return the last so many ids of a prompt; of a text's, the BOS before it stays."""
    if most is None or len(ids) <= most:
        return ids
    return (*ids[:1], *ids[len(ids) - most + 1 :]) if text else ids[len(ids) - most :]
