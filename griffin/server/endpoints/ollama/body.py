"""/api/chat, /api/generate and /api/show: the requests, read into what a chat is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from griffin.server.endpoints.chat.body import ChatRequest
from griffin.server.endpoints.embeddings.body import EmbeddingsRequest, read_texts
from griffin.server.errors import INVALID, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.body import read_body, show
from griffin.server.protocol.bounds import Count, CountOrZero, Id, ModelName, check_most
from griffin.server.protocol.formats import JsonFormat, check_schema
from griffin.server.protocol.messages import Message, ToolCall
from griffin.server.protocol.policy import MESSAGES, TEXT_ONLY, VENDORS, Policy, Refusal
from griffin.server.protocol.reply import encode
from griffin.server.protocol.sampling import (
    GeneratingBody,
    Penalty,
    most_tokens,
    read_stop,
    sampling_arguments,
)
from griffin.server.protocol.tools import Tool, ToolBody, ToolChoice, read_tools

POLICY = Policy(
    ignored=frozenset(
        {
            *("truncate", "shift", "messages[].thinking"),
            # How Ollama loads a model: nothing here depends on it.
            *(
                f"options.{name}"
                for name in (
                    *("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "numa"),
                    *("low_vram", "f16_kv", "use_mmap", "use_mlock", "vocab_only", "logits_all"),
                    *("embedding_only", "num_keep", "mirostat_tau", "mirostat_eta"),
                )
            ),
            "messages[].tool_calls[].function.index",
        }
    ),
    refused=MESSAGES
    | {
        "template": Refusal(VENDORS["chat_template"].why, ("",)),
        "suffix": Refusal("the model only continues text", ("",)),
        "context": Refusal("send the conversation to /api/chat", ([],)),
        "images": Refusal(TEXT_ONLY.why, ([],)),
        "messages[].images": Refusal(TEXT_ONLY.why, ([],)),
    }
    | {f"options.{name}": VENDORS[name] for name in ("typical_p", "tfs_z", "mirostat")},
)


class OptionsBody(msgspec.Struct, kw_only=True):
    """`options`: how tokens are chosen. num_predict below 1: as many as the server gives.

    seed: below 0 is none, as Ollama has it. repeat_penalty: over all that was read.
    """

    num_predict: Annotated[int, Meta(ge=-(2**31), le=2**63 - 1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | list[str] | None = None
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None


class OllamaBody(msgspec.Struct, kw_only=True):
    """Fields of any request that generates.

    model:  a name, with or without ":latest". stream: lines unless it is false.
    format: "json", or a JSON schema. keep_alive: passed over; the model stays.
    think:  passed over, and named: the model does not think.
    """

    model: ModelName | None = None
    stream: bool | None = None
    options: OptionsBody | None = None
    format: str | dict[str, Any] | None = None
    keep_alive: float | str | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: CountOrZero | None = None


class ArgumentsBody(msgspec.Struct, kw_only=True):
    """Which function the model called, and with what: `arguments` is an object."""

    name: Id
    arguments: dict[str, Any] = {}


class CalledBody(msgspec.Struct, kw_only=True):
    """A call that the model made earlier."""

    function: ArgumentsBody
    id: Id | None = None
    type: Annotated[str, Meta(max_length=64)] | None = None


class OllamaMessageBody(msgspec.Struct, kw_only=True):
    """One message. tool_name, tool_call_id: of a tool's result."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    tool_calls: list[CalledBody] | None = None
    tool_name: Annotated[str, Meta(max_length=128)] | None = None
    tool_call_id: Annotated[str, Meta(max_length=128)] | None = None


class OllamaChatBody(OllamaBody, kw_only=True):
    """The body of POST /api/chat. Without messages nothing is generated: the model is there."""

    messages: list[OllamaMessageBody] | None = None
    tools: list[ToolBody] | None = None


class GenerateBody(OllamaBody, kw_only=True):
    """The body of POST /api/generate. Without a prompt nothing is generated.

    raw: the prompt is a text to continue, no message.
    """

    prompt: str | None = None
    system: str | None = None
    raw: bool | None = None


class ShowBody(msgspec.Struct, kw_only=True):
    """The body of POST /api/show. name: what `model` was called once."""

    model: ModelName | None = None
    name: ModelName | None = None
    verbose: bool | None = None


class EmbedBody(msgspec.Struct, kw_only=True):
    """The body of POST /api/embed; `options` say nothing of what is read."""

    input: str | Annotated[list[str], Meta(min_length=1)]
    model: ModelName | None = None
    dimensions: Count | None = None
    keep_alive: float | str | None = None
    options: dict[str, Any] | None = None


class EmbedPromptBody(msgspec.Struct, kw_only=True):
    """The body of POST /api/embeddings, which /api/embed took the place of."""

    prompt: str
    model: ModelName | None = None
    keep_alive: float | str | None = None
    options: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class OllamaRequest:
    """An answer to be written in Ollama's form.

    chat: what is asked; its messages are () where nothing is to be generated.
    text: to be continued as it is; None where the messages are a chat.
    unload: the client lets the model go.
    """

    chat: ChatRequest
    text: str | None = None
    unload: bool = False

    @property
    def ignored(self) -> tuple[str, ...]:
        return self.chat.ignored

    @property
    def sampling(self) -> dict[str, Any]:
        return self.chat.sampling


def parse_ollama_chat(body: bytes, limits: Limits) -> OllamaRequest:
    """Read the body of POST /api/chat; ApiError for anything that cannot be done as asked."""
    read, ignored = read_body(body, OllamaChatBody, POLICY, limits)
    tools, _ = read_tools(read.tools, None, limits)
    said = read.messages or []
    check_most(len(said), f"messages has {len(said)} entries", limits, "max_messages", "messages")
    return _request(read, limits, ignored, tuple(map(_message, said, range(len(said)))), tools)


def parse_generate(body: bytes, limits: Limits) -> OllamaRequest:
    """Read the body of POST /api/generate; ApiError for anything that cannot be done as asked."""
    read, ignored = read_body(body, GenerateBody, POLICY, limits)
    messages: tuple[Message, ...] = ()
    if read.prompt:
        messages = (Message("user", read.prompt),)
        if read.system:
            messages = (Message("system", read.system), *messages)
    text = read.prompt if read.raw and read.prompt else None
    if text is not None and read.system:
        raise ApiError(INVALID, "system and raw exclude each other; put it into prompt", "system")
    return _request(read, limits, ignored, messages, None, text)


def parse_show(body: bytes, limits: Limits) -> tuple[ShowBody, tuple[str, ...]]:
    """Read the body of POST /api/show."""
    return read_body(body, ShowBody, POLICY, limits)


def parse_embed(body: bytes, limits: Limits) -> EmbeddingsRequest:
    """Read the body of POST /api/embed."""
    read, ignored = read_body(body, EmbedBody, POLICY, limits)
    return _texts(read.model, read.input, limits, "input", read.dimensions, ignored)


def parse_embed_prompt(body: bytes, limits: Limits) -> EmbeddingsRequest:
    """Read the body of POST /api/embeddings."""
    read, ignored = read_body(body, EmbedPromptBody, POLICY, limits)
    return _texts(read.model, read.prompt, limits, "prompt", None, ignored)


def _texts(
    model: str | None,
    texts: Any,
    limits: Limits,
    param: str,
    dimensions: int | None,
    ignored: tuple[str, ...],
) -> EmbeddingsRequest:
    return EmbeddingsRequest(
        model=model,
        input=read_texts(texts, limits, param),
        base64=False,
        dimensions=dimensions,
        pooling="mean",
        ignored=ignored,
    )


def _request(
    read: OllamaBody,
    limits: Limits,
    ignored: Sequence[str],
    messages: tuple[Message, ...],
    tools: tuple[Tool, ...] | None,
    text: str | None = None,
) -> OllamaRequest:
    sampling, clamped = _sampling(read, limits)
    thinks = ("think",) if read.think else ()
    return OllamaRequest(
        chat=ChatRequest(
            model=read.model,
            messages=messages,
            sampling=sampling,
            n=1,
            stream=read.stream is not False,
            include_usage=False,
            format=_format(read.format, limits),
            tools=tools,
            tool_choice=ToolChoice("auto"),
            parallel_tool_calls=True,
            session_id=None,
            state=None,
            ignored=(*ignored, *clamped, *thinks),
        ),
        text=text,
        unload=read.keep_alive in (0, "0", "0s"),
    )


def _sampling(read: OllamaBody, limits: Limits) -> tuple[dict[str, Any], tuple[str, ...]]:
    options = read.options or OptionsBody()
    body = GeneratingBody(
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        seed=None if options.seed is None or options.seed < 0 else options.seed,
        repetition_penalty=options.repeat_penalty,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
    )
    sampling = sampling_arguments(body, limits)
    if options.stop:
        sampling["stop"] = read_stop(options.stop, limits, "options.stop")
    most = None if options.num_predict is None else max(options.num_predict, 0) or -1
    sampling["max_tokens"], clamped = most_tokens(
        body, {"options.num_predict": most}, limits, limits.default_max_tokens
    )
    if read.logprobs or read.top_logprobs:
        top = read.top_logprobs or 0
        check_most(top, f"top_logprobs is {top}", limits, "max_logprobs", "top_logprobs")
        sampling["logprobs"] = top
    return sampling, clamped


def _format(form: str | dict[str, Any] | None, limits: Limits) -> JsonFormat | None:
    if not form and not isinstance(form, dict):
        return None
    if isinstance(form, str):
        if form != "json":
            raise ApiError(
                INVALID, f'format is {show(form)}; expected "json" or a schema', "format"
            )
        return JsonFormat(place="format")
    check_schema(form, limits, "format")
    return JsonFormat(form, place="format")


def _message(body: OllamaMessageBody, index: int) -> Message:
    calls = tuple(
        ToolCall(call.id or "call", call.function.name, encode(call.function.arguments).decode())
        for call in body.tool_calls or ()
    )
    if calls and body.role != "assistant":
        param = f"messages[{index}]"
        message = f"{param} calls tools; only the assistant does"
        raise ApiError(INVALID, message, f"{param}.tool_calls")
    id = (body.tool_call_id or body.tool_name or "tool") if body.role == "tool" else None
    return Message(body.role, body.content or "", tool_calls=calls, tool_call_id=id)
