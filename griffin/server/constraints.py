"""What a request says of its answer's form, to a constraint on tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from griffin.grammar import CompiledGrammar, Grammar, json_source, quoted
from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.errors import ApiError
from griffin.server.limits import Limits
from griffin.server.protocol import JsonFormat, Tool, ToolChoice
from griffin.server.protocol.bounds import check_most
from griffin.server.protocol.tools import check_choice
from griffin.server.service import Service
from griffin.server.tool_text import CLOSE, NEXT, OPEN, head

T = TypeVar("T")

_COMPILE_SECONDS = 10.0
_BLAME_SECONDS = 1.0
_ANYTHING = ToolChoice("auto")
# Any text in which no call begins.
_NO_CALL = Grammar.lark(rf"start: TEXT{chr(10)}TEXT: /(.|\n)*/ & ~/(.|\n)*{OPEN}(.|\n)*/")


@dataclass(frozen=True, kw_only=True)
class Form:
    """What an answer must look like.

    answer:     of an answer that calls nothing; any text if None.
    param:      the field that says so, for refusals.
    tools:      that may be called.
    tool_param: where the schema of the tool number {} stands.
    choice:     whether a tool must be called, and which.
    several:    whether more than one call may be made.
    silent:     tools are described to the model, and none may be called.
    """

    answer: JsonFormat | None = None
    param: str = "response_format"
    tools: Sequence[Tool] = ()
    tool_param: str = "tools[{}].function.parameters"
    choice: ToolChoice = _ANYTHING
    several: bool = True
    silent: bool = False

    @classmethod
    def of(
        cls,
        answer: JsonFormat | None,
        tools: Sequence[Tool],
        choice: ToolChoice,
        *,
        several: bool,
        **params: str,
    ) -> Form:
        """Return the form a request asks for.

        tools:  its own, or the session's.
        params: where its fields stand, if not where a chat's do.
        """
        check_choice(choice, tools)
        silent = choice.mode == "none"
        return cls(
            answer=answer,
            tools=() if silent else tools,
            silent=silent and bool(tools),
            choice=choice,
            several=several,
            **params,  # pyright: ignore[reportArgumentType]
        )

    @property
    def text_first(self) -> bool:
        """Whether a call may come after some text."""
        return self.answer is None


async def constrain(service: Service, form: Form) -> CompiledGrammar | None:
    """Return what holds answers to a form; None if anything will do. One is prepared at a time.

    Raises ApiError (400) for what no answer could be held to.
    """
    if form.answer is None and not form.tools and not form.silent:
        return None
    check_size(form, service.limits)
    try:
        async with asyncio.timeout(_COMPILE_SECONDS):
            return await service.compile(lambda: compile_form(service, form))
    except TimeoutError:
        message = f"{form.param} and tools were not prepared in time; others wait for theirs"
        raise ApiError(errors.TIMEOUT, message, retry_after=2.0) from None


def check_size(form: Form, limits: Limits) -> None:
    """Raise ApiError for schemas that are long together; nothing is compiled for that."""
    schemas = [tool.parameters for tool in form.tools]
    if form.answer is not None and form.answer.schema is not None:
        schemas.append(form.answer.schema)
    size = sum(len(p.encode(schema)) for schema in schemas)
    param = "tools" if form.tools else form.param
    check_most(size, f"the schemas have {size} bytes", limits, "max_grammar_bytes", param)


def compile_form(service: Service, form: Form) -> CompiledGrammar:
    """Compile a form's grammar, or say in an ApiError which field is to blame.

    Tools are tried one by one to find the one to blame, for a second at most: others wait.
    """
    compile_ = service.llm.grammars.compile
    answer = None
    if form.answer is not None:
        schema = form.answer.schema
        answer = Grammar.json_object() if schema is None else Grammar.json_schema(schema)
        if not form.tools:
            return _blaming(form.param, compile_, answer)
    if not form.tools:
        return compile_(_NO_CALL)
    for number, tool in enumerate(form.tools):
        if tool.parameters.get("type", "object") != "object":
            param = form.tool_param.format(number)
            raise ApiError(errors.INVALID, f"{param} must describe an object", param)
    offered = [tool for tool in form.tools if form.choice.name in (None, tool.name)]
    must, several = form.choice.mode == "required", form.several and form.choice.name is None
    try:
        return compile_(calls_grammar(offered, answer, must=must, several=several))
    except ValueError as error:
        if answer is not None:
            _blaming(form.param, compile_, answer)
        until = time.monotonic() + _BLAME_SECONDS
        for number, tool in enumerate(form.tools):
            if time.monotonic() >= until:
                break
            alone = calls_grammar([tool], None, must=True, several=False)
            _blaming(form.tool_param.format(number), compile_, alone)
        raise ApiError(errors.INVALID, f"the tools together: {error}", "tools") from None


def calls_grammar(
    tools: Sequence[Tool], answer: Grammar | None, *, must: bool, several: bool
) -> Grammar:
    """Return the grammar of an answer that may call tools, or must.

    answer:  JSON, if an answer that calls nothing must be that; else it is any text, and text may
             come before a call, too.
    several: more than one call may be made.
    """
    calls = "\n  | ".join(f"{quoted(head(tool.name))} %json {_arguments(tool)}" for tool in tools)
    rules = [f"call: ( {calls} ) {quoted('}' + CLOSE)}"]
    if several:
        rules += [f"more: {quoted(NEXT)} call", "calls: opening call more*"]
    else:
        rules += ["calls: opening call"]
    if must:
        rules += ["start: calls", f"opening: {quoted(OPEN)}"]
    elif answer is not None:
        rules += [
            "start: answer | calls",
            f"answer: %json {answer.text}",
            f"opening: {quoted(OPEN)}",
        ]
    else:
        # Lazy: as soon as the text ends with it, nothing but a call may follow.
        rules += ["start: TEXT | calls", r"TEXT: /(.|\n)*/", f"opening[lazy]: TEXT {quoted(OPEN)}"]
    return Grammar.lark("\n".join(rules))


def _arguments(tool: Tool) -> str:
    """Return the schema of a tool's arguments; only a strict one must be held to as a whole."""
    # A function described without parameters takes none.
    schema = tool.parameters or {"properties": {}, "additionalProperties": False}
    return json_source({"type": "object", **schema}, lenient=not tool.strict)


def _blaming(param: str, compile_: Callable[[Grammar], T], grammar: Grammar) -> T:
    try:
        return compile_(grammar)
    except ValueError as error:
        raise ApiError(errors.INVALID, f"{param}: {error}", param) from None
