"""/api/chat and its kin: the answers, each line of a stream, and what a refusal looks like."""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from griffin.server.errors import ApiError, Failure
from griffin.server.protocol.messages import ToolCall
from griffin.server.protocol.reply import Extras, TokenLogprob

DoneReason = Literal["stop", "length", "load", "unload"]


class OllamaFailure(Failure, frozen=True, kw_only=True):
    """The body of every answer here that is not a 2xx, and the line that ends a stream that
    failed."""

    error: str

    @classmethod
    def of(cls, error: ApiError, request_id: str) -> OllamaFailure:
        return cls(error=error.message)


class OllamaVersion(msgspec.Struct, kw_only=True):
    """GET /api/version."""

    version: str


class Details(msgspec.Struct, kw_only=True):
    """What a model is."""

    parameter_size: str
    quantization_level: str
    parent_model: str = ""
    format: str = "safetensors"
    family: str = "recurrentgemma"
    families: list[str] = msgspec.field(default_factory=lambda: ["recurrentgemma"])


class OllamaModel(msgspec.Struct, kw_only=True):
    """The model, by one of its names. size: bytes of its weights in memory."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class OllamaModels(msgspec.Struct, kw_only=True):
    """GET /api/tags."""

    models: list[OllamaModel]


class RunningModel(OllamaModel, kw_only=True):
    """The model as one that is loaded. expires_at: it stays. context_length: the longest prompt."""

    expires_at: str
    size_vram: int
    context_length: int


class RunningModels(msgspec.Struct, kw_only=True):
    """GET /api/ps."""

    models: list[RunningModel]


class ModelDetails(msgspec.Struct, kw_only=True):
    """POST /api/show. There is no Modelfile, and the template is not Ollama's kind."""

    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str
    modelfile: str = ""
    template: str = ""
    parameters: str = ""


class OllamaFunction(msgspec.Struct, kw_only=True):
    """A function's name and its arguments."""

    name: str
    arguments: msgspec.Raw


class OllamaCall(msgspec.Struct, kw_only=True):
    """A call that the model makes."""

    id: str
    function: OllamaFunction


class OllamaMessage(msgspec.Struct, kw_only=True):
    """What the model says, or more of it."""

    content: str
    role: Literal["assistant"] = "assistant"
    tool_calls: list[OllamaCall] | UnsetType = UNSET


class OllamaLine(msgspec.Struct, kw_only=True):
    """A whole answer, or a line of one; the last line has done, why, and what it cost.

    Durations are nanoseconds. load_duration: waiting for a slot. prompt_eval_count: of the whole
    prompt, whether it was read now or before.
    """

    model: str
    created_at: str
    done: bool = False
    done_reason: DoneReason | UnsetType = UNSET
    logprobs: list[TokenLogprob] | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET
    griffin: Extras | UnsetType = UNSET


class OllamaChat(OllamaLine, kw_only=True):
    """The answer of POST /api/chat, or a line of it."""

    message: OllamaMessage


class OllamaText(OllamaLine, kw_only=True):
    """The answer of POST /api/generate, or a line of it."""

    response: str


class OllamaVectors(msgspec.Struct, kw_only=True):
    """The answer of POST /api/embed, vectors in the order of the texts."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaVector(msgspec.Struct, kw_only=True):
    """The answer of POST /api/embeddings."""

    embedding: list[float]


def called(call: ToolCall) -> OllamaCall:
    """Return a whole call as it is told here: on one line, however the model laid it out.

    Its JSON is not read again: it may be deeper than readers go. No string in it has a line break.
    """
    arguments = msgspec.Raw(call.arguments.replace("\n", " ").encode())
    return OllamaCall(id=call.id, function=OllamaFunction(name=call.name, arguments=arguments))


def moment(seconds: float | None = None) -> str:
    """Return a time (seconds since 1970; else now) as Ollama writes it, in RFC 3339."""
    seconds = time.time() if seconds is None else seconds
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1e6):06d}Z"


def nanoseconds(seconds: float) -> int:
    """Return a duration as it is told here."""
    return max(0, round(seconds * 1e9))
