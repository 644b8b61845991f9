"""What a request says of its answer's form, to a constraint on tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

from griffin.grammar import TYPES, CompiledGrammar, Grammar, hold, json_source, quoted
from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.errors import ApiError
from griffin.server.limits import Limits
from griffin.server.protocol import AnswerFormat, TextFormat, Tool, ToolChoice
from griffin.server.protocol.bounds import check_most
from griffin.server.protocol.structured import OTHERS
from griffin.server.protocol.tools import check_choice
from griffin.server.service import Service
from griffin.server.tool_text import CLOSE, NEXT, OPEN, head
from griffin.server.workers import asking

S = TypeVar("S")
T = TypeVar("T")

_COMPILE_SECONDS = 10.0
_BLAME_SECONDS = 1.0
_ANYTHING = ToolChoice("auto")
_ANY_ARGUMENTS = {"type": "object"}
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

    answer: AnswerFormat | None = None
    param: str = "response_format"
    tools: Sequence[Tool] = ()
    tool_param: str = "tools[{}].function.parameters"
    choice: ToolChoice = _ANYTHING
    several: bool = True
    silent: bool = False

    @classmethod
    def of(
        cls,
        answer: AnswerFormat | None,
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

    def after(self, begun: str) -> Form:
        """Return the form of what is left of an answer that was begun: no call follows a text that
        is to be JSON."""
        return replace(self, tools=()) if begun and self.answer is not None else self

    @property
    def blamed(self) -> str:
        """The field that says what an answer is, in whichever dialect."""
        place = "" if self.answer is None else self.answer.place
        return place if place.startswith(OTHERS) else self.param

    @property
    def text_first(self) -> bool:
        """Whether a call may come after some text."""
        return self.answer is None


class Constrained(NamedTuple):
    """What holds answers to a form. grammar: None if anything will do. passed: fields of the
    request that are not held to, which the answer must name."""

    grammar: CompiledGrammar | None = None
    passed: tuple[str, ...] = ()


async def constrain(service: Service, form: Form, begun: str = "") -> Constrained:
    """Return what holds answers to a form. One is prepared at a time.

    begun: how the answer begins; the form is that of all of it.
    Raises ApiError: 400 for what no answer could be held to, 429 for more than a key may have.
    """
    if form.answer is None and not form.tools and not form.silent:
        return Constrained()
    check_size(form, service.limits)
    try:
        async with asyncio.timeout(_COMPILE_SECONDS):
            made = await service.compile(lambda: _after(service, form, begun))
    except TimeoutError:
        message = f"{form.blamed} and tools were not prepared in time; others wait for theirs"
        raise ApiError(errors.TIMEOUT, message, retry_after=2.0) from None
    asker = asking.get()
    if made.grammar is not None and asker is not None:
        asker.share(made.grammar, made.grammar.weight)
    return made


def _after(service: Service, form: Form, begun: str) -> Constrained:
    """Compile a form's grammar, for what is left of an answer that was begun."""
    made = compile_form(service, form)
    if made.grammar is None or not begun:
        return made
    ids = service.llm.tokenizer.encode(begun, bos=False)
    go_on = partial(made.grammar.after, seconds=_COMPILE_SECONDS)  # then nobody waits for it
    return made._replace(grammar=_blaming("messages", go_on, ids))


def check_size(form: Form, limits: Limits) -> None:
    """Raise ApiError for schemas that are long together; nothing is compiled for that."""
    schemas: list[Any] = [tool.parameters for tool in form.tools]
    if isinstance(form.answer, TextFormat):
        schemas += form.answer.texts
    elif form.answer is not None and form.answer.schema is not None:
        schemas.append(form.answer.schema)
    size = sum(len(p.encode(schema)) for schema in schemas)
    param = "tools" if form.tools else form.blamed
    check_most(size, f"the schemas have {size} bytes", limits, "max_grammar_bytes", param)


def compile_form(service: Service, form: Form) -> Constrained:
    """Compile a form's grammar, or say in an ApiError which field is to blame."""
    compile_ = service.llm.grammars.compile
    if isinstance(form.answer, TextFormat) and form.tools:
        message = f"{form.blamed} and tools both say what an answer is; beside tools it may be JSON"
        raise ApiError(errors.INVALID, message, form.blamed)
    answer, place = _blaming(form.blamed, _answer, form.answer)
    if answer is not None and not form.tools:
        compiled = _blaming(form.blamed, compile_, answer)
        return Constrained(compiled, _named(place, compiled.passed))
    if not form.tools:
        return Constrained(compile_(_NO_CALL))
    passed: list[str] = []
    written = None
    if answer is not None:
        written, left = _blaming(form.blamed, hold, answer.text)
        passed += _named(place, left)
    calls: list[Call] = []
    for number, tool in enumerate(form.tools):
        param = form.tool_param.format(number)
        schema, also = _arguments(tool, param)
        if form.choice.name in (None, tool.name):
            source, left = _held(tool, schema, param)
            calls.append(Call(tool.name, source, tool.strict, param))
            passed += _named(param, (*also, *left))
    must, several = form.choice.mode == "required", form.several and form.choice.name is None
    try:
        compiled = compile_(calls_grammar(calls, written, must=must, several=several))
    except ValueError as error:
        if answer is not None:
            _blaming(form.blamed, compile_, answer)
        possible = _possible(compile_, calls)
        if possible == calls:
            raise ApiError(errors.INVALID, f"the tools together: {error}", "tools") from None
        passed += [call.param for call in calls if call not in possible]
        grammar = calls_grammar(possible, written, must=must, several=several)
        compiled = _blaming("tools", compile_, grammar)
    return Constrained(compiled, tuple(passed))


def _answer(form: AnswerFormat | None) -> tuple[Grammar | None, str]:
    if form is None:
        return None, ""
    if isinstance(form, TextFormat):
        make = {"regex": Grammar.regex, "choice": Grammar.choice, "grammar": Grammar.ebnf}
        return make[form.kind](*form.texts), form.place
    if form.schema is None:
        return Grammar.json_object(), ""
    return Grammar.json_schema(form.schema, lenient=not form.strict), form.place


def _named(place: str, passed: Sequence[str]) -> tuple[str, ...]:
    """Return places in a schema as places in the request."""
    return tuple(f"{place}.{inner}" if inner else place for inner in passed)


class Call(NamedTuple):
    """How a function may be called.

    name, param: the function's, and where its schema stands. arguments: what llguidance is given.
    strict:      all of its schema must be held to.
    """

    name: str
    arguments: str
    strict: bool
    param: str


def _possible(compile_: Callable[[Grammar], CompiledGrammar], calls: list[Call]) -> list[Call]:
    """Return calls with free arguments for those that are too much by themselves.

    Each is tried alone, for a second at most: others wait. ApiError for one that is strict.
    """
    until = time.monotonic() + _BLAME_SECONDS
    possible: list[Call] = []
    for call in calls:
        if time.monotonic() < until:
            try:
                compile_(calls_grammar([call], None, must=True, several=False))
            except ValueError as error:
                if call.strict:
                    raise _refusal(call.param, error) from None
                call = call._replace(arguments=hold(json_source(_ANY_ARGUMENTS))[0])
        possible.append(call)
    return possible


def calls_grammar(
    calls: Sequence[Call], answer: str | None, *, must: bool, several: bool
) -> Grammar:
    """Return the grammar of an answer that may call tools, or must.

    answer:  what llguidance is given for the JSON that an answer must be which calls nothing; else
             it is any text, and text may come before a call, too.
    several: more than one call may be made.
    """
    heads = "\n  | ".join(f"{quoted(head(call.name))} %json {call.arguments}" for call in calls)
    rules = [f"call: ( {heads} ) {quoted('}' + CLOSE)}"]
    if several:
        rules += [f"more: {quoted(NEXT)} call", "calls: opening call more*"]
    else:
        rules += ["calls: opening call"]
    if must:
        rules += ["start: calls", f"opening: {quoted(OPEN)}"]
    elif answer is not None:
        rules += [
            "start: answer | calls",
            f"answer: %json {answer}",
            f"opening: {quoted(OPEN)}",
        ]
    else:
        # Lazy: as soon as the text ends with it, nothing but a call may follow.
        rules += ["start: TEXT | calls", r"TEXT: /(.|\n)*/", f"opening[lazy]: TEXT {quoted(OPEN)}"]
    return Grammar.lark("\n".join(rules))


def _arguments(tool: Tool, param: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the schema of a tool's arguments, and what of it says nothing."""
    # A function described without parameters takes none.
    schema = tool.parameters or {"properties": {}, "additionalProperties": False}
    kind = schema.get("type", "object")
    kinds = kind if isinstance(kind, list) else [kind]
    if "object" in kinds:
        return {**schema, "type": "object"}, ()
    if tool.strict or any(one in TYPES for one in kinds if isinstance(one, str)):
        raise ApiError(errors.INVALID, f"{param} must describe an object", param)
    return {**schema, "type": "object"}, ("type",)


def _held(tool: Tool, schema: dict[str, Any], param: str) -> tuple[str, tuple[str, ...]]:
    """Return what llguidance is given for a tool's arguments, and what that leaves out."""
    try:
        return hold(json_source(schema, lenient=not tool.strict))
    except ValueError as error:
        if tool.strict:
            raise _refusal(param, error) from None
        return hold(json_source(_ANY_ARGUMENTS))[0], ("",)


def _blaming(param: str, do: Callable[[S], T], given: S) -> T:
    try:
        return do(given)
    except ValueError as error:
        raise _refusal(param, error) from None


def _refusal(param: str, error: ValueError) -> ApiError:
    return ApiError(errors.INVALID, f"{param}: {error}", param)
