"""/v1/chat/completions: the request."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from griffin.server.errors import INVALID, UNSUPPORTED, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.body import read_body, too_large
from griffin.server.protocol.bounds import Count, CountOrZero, ModelName, check_most
from griffin.server.protocol.formats import FormatBody
from griffin.server.protocol.identity import Identity, identify
from griffin.server.protocol.messages import (
    Message,
    MessageBody,
    check_end,
    read_messages,
)
from griffin.server.protocol.policy import (
    HARMLESS,
    MESSAGES,
    STREAMING,
    TEXT_ONLY,
    VENDORS,
    Policy,
    Refusal,
)
from griffin.server.protocol.sampling import (
    Most,
    most_tokens,
    sampling_arguments,
)
from griffin.server.protocol.structured import AnswerFormat, read_form
from griffin.server.protocol.telling import NOTHING, Telling, TellingBody, read_telling
from griffin.server.protocol.tools import Tool, ToolBody, ToolChoice, ToolChoiceBody, read_tools

# Templates of other models ask for these; this one has no thinking to turn on or off.
_TEMPLATE_ARGUMENTS = ("enable_thinking", "thinking")

_TOOLS = "use tools and tool_choice"

POLICY = Policy(
    ignored=HARMLESS
    | STREAMING
    | {
        *("metadata", "verbosity", "reasoning_effort"),
        *("messages[].annotations", "messages[].tool_calls[].index"),
        *("messages[].content[].annotations", "messages[].content[].cache_control"),
        "messages[].content[].prompt_cache_breakpoint",
        "tools[].cache_control",
    },
    refused=VENDORS
    | MESSAGES
    | {
        "audio": TEXT_ONLY,
        "modalities": Refusal(TEXT_ONLY.why, (["text"], [])),
        "web_search_options": Refusal("this server searches nothing"),
        "functions": Refusal(_TOOLS, ([],)),
        "function_call": Refusal(_TOOLS, ("none", "auto")),
        "store": Refusal("completions are not stored; use session_id, or /v1/responses", (False,)),
        "best_of": Refusal("use n", (1,)),
        "suffix": Refusal("the model only continues text", ("",)),
        "echo": Refusal("use /v1/completions", (False,)),
        "tools[].custom": Refusal("only functions can be called"),
        "tool_choice.allowed_tools": Refusal("send only the tools that are allowed"),
        "tool_choice.custom": Refusal("only functions can be called"),
    },
)


class PredictedText(Struct, kw_only=True):
    """A part of a prediction."""

    text: str
    type: Literal["text"] = "text"


class PredictionBody(Struct, kw_only=True):
    """What an answer will probably say: a file that is written again with an edit, say."""

    content: str | list[PredictedText]
    type: Literal["content"] = "content"


class ChatBody(TellingBody, kw_only=True):
    """The body of POST /v1/chat/completions. An assistant's last message is how the answer begins.

    continue_final_message, add_generation_prompt: vLLM's words for that.
    state_data: a state that the messages follow, a state file in base64. return_state: give the
                state after the answer.
    prediction: what the answer will probably say, a source of drafts.
    """

    messages: Annotated[list[MessageBody], Meta(min_length=1)]
    model: ModelName | None = None
    max_tokens: Most | None = None
    max_completion_tokens: Most | None = None
    n: Count | None = None
    logprobs: bool | None = None
    top_logprobs: CountOrZero | None = None
    response_format: FormatBody | None = None
    tools: list[ToolBody] | None = None
    tool_choice: ToolChoiceBody | None = None
    parallel_tool_calls: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    prediction: PredictionBody | None = None
    state_data: str | None = None
    return_state: bool | None = None


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A chat that is ready to run.

    messages:   the conversation. `protocol.turns` gives it as griffin.text.Chat takes it.
    sampling:   keyword arguments of SamplingParams; "logprobs" is in it if they were asked for.
    n:          answers. stream: as events. include_usage: with a last chunk that tells the usage.
    format:     the form the answer must have, None for free text.
    tools:      functions that may be called; None: not said, so a session's own.
    tool_choice, parallel_tool_calls: whether one is called, and whether several.
    state:      a saved state that the prompt follows. Which session: `identity(headers)`.
    state_data: a state that the prompt follows. return_state: the answer's is to come with it.
    ignored:    fields that were passed over and must be named in the response (`ignored_header`).
    telling:    what the answer tells beside its text.
    truncate:   how many of the prompt's last tokens are read; None for all.
    """

    model: str | None
    messages: tuple[Message, ...]
    sampling: dict[str, Any]
    n: int
    stream: bool
    include_usage: bool
    format: AnswerFormat | None
    tools: tuple[Tool, ...] | None
    tool_choice: ToolChoice
    parallel_tool_calls: bool
    session_id: str | None
    state: str | None
    ignored: tuple[str, ...]
    telling: Telling = NOTHING
    truncate: int | None = None
    state_data: bytes | None = None
    return_state: bool = False

    def identity(self, headers: Mapping[str, str]) -> Identity:
        """Return which conversation this goes on with; see `identify`."""
        return identify(
            headers,
            session_id=self.session_id,
            answers=self.n,
        )


def parse_chat(body: bytes, limits: Limits, *, states: bool = False) -> ChatRequest:
    """Read the body of POST /v1/chat/completions; ApiError for anything that cannot be done as
    asked.

    states: a state may come with it, and go with the answer.
    """
    read, ignored = read_body(body, ChatBody, POLICY, limits.with_state() if states else limits)
    data = _state_data(read, len(body), limits, states)
    n = 1 if read.n is None else read.n
    check_most(n, f"n is {n}", limits, "max_choices", "n")
    tools, choice = read_tools(read.tools, read.tool_choice, limits)
    for name in read.chat_template_kwargs or {}:
        if name not in _TEMPLATE_ARGUMENTS:
            raise ApiError(
                UNSUPPORTED,
                f"chat_template_kwargs has {name[:64]!r}; a template takes no arguments from"
                " requests",
                "chat_template_kwargs",
            )
    sampling = sampling_arguments(read, limits)
    own = {"max_tokens": read.max_tokens, "max_completion_tokens": read.max_completion_tokens}
    most, clamped = most_tokens(read, own, limits, limits.default_max_tokens)
    sampling["max_tokens"] = most
    if (alternatives := _alternatives(read, limits)) is not None:
        sampling["logprobs"] = alternatives
    telling, truncate = read_telling(read, limits)
    options = read.stream_options
    messages = read_messages(read.messages, limits)
    check_end(messages, read.continue_final_message, read.add_generation_prompt)
    form, beside = read_form(read, read.response_format, limits, "response_format")
    if read.prediction is not None:
        given = read.prediction.content
        parts = [given] if isinstance(given, str) else [part.text for part in given]
        sampling["prediction"] = "".join(parts)
    return ChatRequest(
        model=read.model,
        messages=messages,
        sampling=sampling,
        n=n,
        stream=bool(read.stream),
        include_usage=options is not None and bool(options.include_usage),
        telling=telling,
        truncate=truncate,
        format=form,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=read.parallel_tool_calls is not False,
        session_id=read.session_id,
        state=read.state,
        ignored=(*ignored, *clamped, *beside),
        state_data=data,
        return_state=bool(read.return_state),
    )


def _state_data(read: ChatBody, size: int, limits: Limits, states: bool) -> bytes | None:
    """Return the state that a body brings; ApiError if it may not, or cannot be."""
    given = {"state_data": read.state_data is not None, "return_state": bool(read.return_state)}
    for name in (name for name, there in given.items() if there):
        if not states:
            message = f"{name} is not allowed here; a server takes it with --allow-state-data"
            raise ApiError(UNSUPPORTED, message, name)
        if read.n not in (None, 1):
            raise ApiError(INVALID, f"{name} goes with one answer, and n is {read.n}", "n")
        if name == "state_data" and read.state is not None:
            raise ApiError(INVALID, "state and state_data are both given; send one", "state_data")
    if read.state_data is None:
        if size > limits.max_body_bytes:
            raise too_large(size, limits)
        return None
    if size - len(read.state_data) > limits.max_body_bytes:
        raise too_large(size - len(read.state_data), limits)
    try:
        return b64decode(read.state_data, validate=True)
    except ValueError:
        raise ApiError(INVALID, "state_data is no base64", "state_data") from None


def _alternatives(body: ChatBody, limits: Limits) -> int | None:
    top = body.top_logprobs
    if top and not body.logprobs:
        raise ApiError(INVALID, f"top_logprobs is {top}, but logprobs is not true", "top_logprobs")
    if not body.logprobs:
        return None
    check_most(top or 0, f"top_logprobs is {top}", limits, "max_logprobs", "top_logprobs")
    return top or 0
