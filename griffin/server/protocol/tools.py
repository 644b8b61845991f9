"""Functions that the model may call, and whether it must."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from griffin.server.errors import INVALID, UNSUPPORTED, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.body import show
from griffin.server.protocol.bounds import FUNCTION_PATTERN, check_most
from griffin.server.protocol.formats import check_schema

FunctionName = Annotated[str, Meta(pattern=FUNCTION_PATTERN)]
_DESCRIPTION = Meta(max_length=16_384)


class FunctionBody(msgspec.Struct, kw_only=True):
    """A function as /v1/chat/completions describes it; `parameters` is a JSON schema.

    schema_field: what that is called in the request.
    """

    schema_field: ClassVar[str] = "parameters"

    name: FunctionName
    description: Annotated[str, _DESCRIPTION] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolBody(msgspec.Struct, kw_only=True):
    """A tool of /v1/chat/completions."""

    function: FunctionBody | None = None
    type: str = "function"


class FlatToolBody(FunctionBody, kw_only=True):
    """A tool of /v1/responses: the same without the wrapping."""

    type: str
    name: FunctionName | None = None  # pyright: ignore[reportIncompatibleVariableOverride]


class ChosenFunction(msgspec.Struct, kw_only=True):
    """The function that must be called."""

    name: FunctionName


class ChosenTool(msgspec.Struct, kw_only=True):
    """{"type": "function", "function": {"name": ...}}, or flat as /v1/responses writes it."""

    type: Literal["function"]
    function: ChosenFunction | None = None
    name: FunctionName | None = None


ToolChoiceBody = Literal["none", "auto", "required", "any"] | ChosenTool


@dataclass(frozen=True)
class Tool:
    """A function that the model may call. `parameters` is a JSON schema, {} for none."""

    name: str
    description: str
    parameters: dict[str, Any]
    strict: bool


@dataclass(frozen=True)
class ToolChoice:
    """Whether a function is called: never, as the model likes, or always; `name` is the one that
    must be."""

    mode: Literal["none", "auto", "required"]
    name: str | None = None


def read_tools(
    tools: Sequence[ToolBody | FunctionBody] | None, choice: ToolChoiceBody | None, limits: Limits
) -> tuple[tuple[Tool, ...] | None, ToolChoice]:
    """Return the tools, None if they were left out, and the choice; "any" is "required".

    Raises ApiError with the path of what is wrong. Whether a choice fits tools that were left out
    is for `check_choice` to say, once it is known which there are.
    """
    bodies = tools or []
    check_most(len(bodies), f"tools has {len(bodies)} entries", limits, "max_tools", "tools")
    read: list[Tool] = []
    seen: set[str] = set()
    for index, body in enumerate(bodies):
        flat = isinstance(body, FunctionBody)
        where = f"tools[{index}]" if flat else f"tools[{index}].function"
        if isinstance(body, (ToolBody, FlatToolBody)):
            check_own(index, body.type, ("function",), "functions")
        function = body if flat else body.function
        if function is None or function.name is None:
            missing = where if function is None else f"{where}.name"
            raise ApiError(INVALID, f"{missing} is missing", missing)
        if function.name in seen:
            raise ApiError(
                INVALID, f"{where}.name {function.name!r} is there twice", f"{where}.name"
            )
        seen.add(function.name)
        schema = function.parameters or {}
        check_schema(schema, limits, f"{where}.{function.schema_field}")
        read.append(Tool(function.name, function.description or "", schema, bool(function.strict)))
    chosen = _choice(choice)
    if tools is None:
        return None, chosen
    check_choice(chosen, read)
    return tuple(read), chosen


def check_own(index: int, type: str | None, ours: Sequence[str | None], send: str) -> None:
    """Raise ApiError for a tool that the server itself would have to be: a search, a shell."""
    if type not in ours:
        raise ApiError(
            UNSUPPORTED,
            f"tools[{index}] is of type {show(type)}; this server has no tools of its own: send"
            f" {send}",
            f"tools[{index}].type",
        )


def check_choice(choice: ToolChoice, tools: Sequence[Tool]) -> None:
    """Raise ApiError for a choice that these tools leave nobody."""
    names = sorted(tool.name for tool in tools)
    if choice.name is not None and choice.name not in names:
        raise ApiError(
            INVALID,
            f"tool_choice names {choice.name!r}; tools has {', '.join(names) or 'none'}",
            "tool_choice",
        )
    if choice.mode == "required" and not names:
        raise ApiError(INVALID, "tool_choice requires a call, but tools is empty", "tool_choice")


def _choice(choice: ToolChoiceBody | None) -> ToolChoice:
    if choice is None:
        return ToolChoice("auto")
    if isinstance(choice, ChosenTool):
        name = choice.function.name if choice.function is not None else choice.name
        if name is None:
            raise ApiError(INVALID, "tool_choice names no function", "tool_choice")
        return ToolChoice("required", name)
    return ToolChoice("required" if choice == "any" else choice)
