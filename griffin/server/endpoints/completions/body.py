"""/v1/completions: the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from griffin.server.limits import Limits
from griffin.server.protocol.body import read_body
from griffin.server.protocol.bounds import Count, CountOrZero, ModelName, check_most
from griffin.server.protocol.formats import FormatBody
from griffin.server.protocol.identity import Identity, identify
from griffin.server.protocol.policy import (
    CARRIED,
    HARMLESS,
    STREAMING,
    VENDORS,
    Policy,
    Refusal,
)
from griffin.server.protocol.prompts import Prompt, Prompts, read_prompts
from griffin.server.protocol.sampling import (
    MostOrZero,
    most_tokens,
    sampling_arguments,
)
from griffin.server.protocol.structured import AnswerFormat, read_form
from griffin.server.protocol.telling import NOTHING, Telling, TellingBody, read_telling

DEFAULT_MAX_TOKENS = 16  # this endpoint's own, wherever it is spoken

POLICY = Policy(
    ignored=HARMLESS | STREAMING | {"metadata"},
    refused={
        **VENDORS,
        **CARRIED,
        "best_of": Refusal("use n", (1,)),
        "suffix": Refusal("the model only continues text", ("",)),
        "messages": Refusal("use /v1/chat/completions"),
        "tools": Refusal("use /v1/chat/completions", ([],)),
    },
)


class CompletionBody(TellingBody, kw_only=True):
    """The body of POST /v1/completions."""

    prompt: Prompts
    model: ModelName | None = None
    max_tokens: MostOrZero | None = None
    n: Count | None = None
    echo: bool | None = None
    logprobs: CountOrZero | None = None
    response_format: FormatBody | None = None


@dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """Prompts that are ready to run.

    prompts:    each a string ("" is a text with nothing in it: begin with BOS) or a tuple of ids.
    sampling:   keyword arguments of SamplingParams. Without "max_tokens" where 0 were asked for:
                then the prompt is only read.
    max_tokens: how many to generate, 0 included.
    echo:       put the prompt before each answer; with "logprobs" in `sampling`, its
                log-probabilities too.
    n:          answers to each prompt; choice i of prompt p has the index p * n + i.
    The rest is as in ChatRequest.
    """

    model: str | None
    prompts: tuple[Prompt, ...]
    sampling: dict[str, Any]
    max_tokens: int
    n: int
    echo: bool
    stream: bool
    include_usage: bool
    format: AnswerFormat | None
    session_id: str | None
    state: str | None
    ignored: tuple[str, ...]
    telling: Telling = NOTHING
    truncate: int | None = None

    def identity(self, headers: Mapping[str, str]) -> Identity:
        """Return which conversation this goes on with; see `identify`."""
        return identify(
            headers,
            session_id=self.session_id,
            answers=len(self.prompts) * self.n,
        )


def parse_completion(body: bytes, limits: Limits) -> CompletionRequest:
    """Read the body of POST /v1/completions; ApiError for anything that cannot be done as asked."""
    read, ignored = read_body(body, CompletionBody, POLICY, limits)
    prompts = read_prompts(read.prompt, limits, "prompt", "max_prompts")
    n = 1 if read.n is None else read.n
    check_most(n, f"n is {n}", limits, "max_choices", "n")
    rows = len(prompts) * n
    check_most(
        rows, f"{len(prompts)} prompts with n={n} are {rows} answers", limits, "max_rows", "n"
    )
    sampling = sampling_arguments(read, limits)
    own = {"max_tokens": read.max_tokens}
    max_tokens, clamped = most_tokens(read, own, limits, DEFAULT_MAX_TOKENS, least=0)
    form, beside = read_form(read, read.response_format, limits, "response_format")
    if max_tokens:
        sampling["max_tokens"] = max_tokens
    if read.logprobs is not None:
        check_most(
            read.logprobs, f"logprobs is {read.logprobs}", limits, "max_logprobs", "logprobs"
        )
        sampling["logprobs"] = read.logprobs
    telling, truncate = read_telling(read, limits)
    options = read.stream_options
    return CompletionRequest(
        model=read.model,
        prompts=prompts,
        sampling=sampling,
        max_tokens=max_tokens,
        n=n,
        echo=bool(read.echo),
        stream=bool(read.stream),
        include_usage=options is not None and bool(options.include_usage),
        telling=telling,
        truncate=truncate,
        format=form,
        session_id=read.session_id,
        state=read.state,
        ignored=(*ignored, *clamped, *beside),
    )
