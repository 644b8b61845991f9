"""A checkpoint's own Jinja chat template, rendered with limits and with its users' text kept apart.

A template comes from whoever made the checkpoint: it runs in jinja2's immutable sandbox, with a
limit on time (checked in every loop turn and macro call), on output and on the size of values. That
stops accidents and simple attacks; it is no wall between processes.
"""

import datetime
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

TIME_LIMIT = 2.0  # seconds a rendering may take
SIZE_LIMIT = 1 << 20  # characters a rendering may have beyond eight times the messages' own
_LARGEST_NUMBER = 1_000_000  # as an argument: a width to pad to, a count to repeat


class TemplateError(ValueError):
    """The checkpoint's chat template refuses the conversation, is broken, or went over a limit."""


class TemplateRefusal(TemplateError):
    """The template itself called raise_exception."""


class Control(str):
    """The name of a control token where the template, not a message, wrote it."""

    __slots__ = ()


Segment = str  # a Control, or text


class ChatTemplate:
    """A compiled template.

    control: the names of the tokenizer's control tokens. variables: bos_token and its like.
    Raises TemplateError if the source does not parse.
    """

    def __init__(
        self,
        source: str,
        control: Iterable[str],
        variables: Mapping[str, str],
        time_limit: float = TIME_LIMIT,
        size_limit: int = SIZE_LIMIT,
    ) -> None:
        self._control = sorted(control, key=len, reverse=True)
        if short := [name for name in self._control if len(name) < 2]:
            raise TemplateError(
                f"control token {short[0]!r} is one character: messages cannot be kept apart"
                " from it"
            )
        self._pattern = re.compile("(" + "|".join(map(re.escape, self._control)) + ")")
        self._firsts = _any_of({name[0] for name in self._control})
        self._lasts = _any_of({name[-1] for name in self._control})
        self._variables = dict(variables)
        self._source = source
        self._size_limit = size_limit
        self._lock = threading.Lock()  # the clock and the limits belong to one rendering at a time
        self._environment = _Environment(time_limit)
        try:
            tree = self._environment.parse(source)
            self._environment.add_limits(tree)
            code = self._environment.compile(tree)
            self._template = jinja2.Template.from_code(
                self._environment, code, self._environment.make_globals(None)
            )
        except (jinja2.TemplateError, RecursionError, SyntaxError) as error:
            raise TemplateError(
                f"the checkpoint's chat template does not compile: {error}"
            ) from error

    def segments(
        self, messages: Sequence[tuple[str, str]], add_generation_prompt: bool
    ) -> list[Segment]:
        """Render (role, content) messages; return control tokens and text in order.

        A control token's name counts as one only where the template wrote it. For that, a mark is
        put inside the messages wherever such a name could begin or end, and taken out again
        afterwards; so the template may trim, join or change the case of contents. It is rendered
        with and without marks: should it look so deep into a content that the two differ, the
                                conversation is refused (TemplateError).
        """
        now = datetime.datetime.now()
        mark = free_character([self._source, *(content for _, content in messages)])
        guarded = [(role, self._guard(content, mark)) for role, content in messages]
        rendered = self._render(guarded, add_generation_prompt, now)
        if guarded != list(messages) and rendered.replace(mark, "") != self._render(
            messages, add_generation_prompt, now
        ):
            raise TemplateError(
                "the checkpoint's chat template decides by what is written in a message, and a"
                f" message has characters of control tokens such as {self._control[0]}: it cannot"
                " be rendered safely"
            )
        parts = self._pattern.split(rendered)
        segments = [
            Control(part) if index % 2 else part.replace(mark, "")
            for index, part in enumerate(parts)
        ]
        return [segment for segment in segments if segment]

    def _guard(self, content: str, mark: str) -> str:
        guarded = self._lasts.sub(lambda match: mark + match[0], content)
        guarded = self._firsts.sub(lambda match: match[0] + mark, guarded)
        core = content.strip()
        if (
            core
            and guarded == content
            and any(core.lower() in name.lower() for name in self._control)
        ):
            # "end_of_turn" alone: the template might put the brackets around it.
            at = content.index(core) + 1
            # Marked on both sides of the first character: of one character, either side may be cut.
            guarded = content[: at - 1] + mark + content[at - 1 : at] + mark + content[at:]
        return guarded

    def _render(
        self,
        messages: Sequence[tuple[str, str]],
        add_generation_prompt: bool,
        now: datetime.datetime,
    ) -> str:
        limit = self._size_limit + 8 * sum(len(content) for _, content in messages)
        environment = self._environment
        pieces: list[str] = []
        size = 0
        self._lock.acquire()
        try:
            environment.start(limit)
            for piece in self._template.generate(
                messages=[{"role": role, "content": content} for role, content in messages],
                add_generation_prompt=add_generation_prompt,
                raise_exception=_refuse,
                strftime_now=now.strftime,
                **self._variables,
            ):
                environment.tick()
                size += len(piece)
                if size > limit:
                    raise TemplateError(
                        f"the checkpoint's chat template wrote more than {limit} characters"
                    )
                pieces.append(piece)
        except TemplateError:
            raise
        # A template is a program: it can fail with whatever a program can.
        except Exception as error:
            raise TemplateError(
                f"the checkpoint's chat template fails ({type(error).__name__}: {error})"
            ) from error
        finally:
            self._lock.release()
        return "".join(pieces)


def free_character(texts: Iterable[str]) -> str:
    """Return a private-use character that none of `texts` has."""
    used = set().union(*map(set, texts))
    for code in range(0xE000, 0xF900):
        if chr(code) not in used:
            return chr(code)
    raise TemplateError(
        "the messages use every private-use character of Unicode (U+E000 to U+F8FF)"
    )


def _refuse(message: object) -> NoReturn:
    raise TemplateRefusal(f"the checkpoint's chat template refuses the conversation: {message}")


def _any_of(characters: set[str]) -> re.Pattern[str]:
    return re.compile("[" + "".join(map(re.escape, sorted(characters))) + "]")


class _Generation(Extension):
    """`{% generation %} ... {% endgeneration %}`, a mark around replies for training: just its
    body."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox that templates of this format are written for, with limits."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self, time_limit: float) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        self._time_limit = time_limit
        self._deadline = 0.0
        self._value_limit = 0
        self.filters = {name: self._limited(function) for name, function in self.filters.items()}
        self.filters["format"] = self._limited(_format)
        self.filters["tojson"] = self._limited(_tojson)

    def start(self, value_limit: int) -> None:
        self._deadline = time.monotonic() + self._time_limit
        self._value_limit = value_limit

    def tick(self) -> str:
        if time.monotonic() > self._deadline:
            raise TemplateError(
                f"the checkpoint's chat template took more than {self._time_limit} s"
            )
        return ""

    def add_limits(self, tree: nodes.Template) -> None:
        """Look at the clock in every loop and macro, and at the size of every assigned value."""
        for loop in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
            loop.body.insert(
                0, nodes.ExprStmt(self._call("tick", [], loop.lineno), lineno=loop.lineno)
            )
        for assign in tree.find_all(nodes.Assign):
            assign.node = self._call("bounded", [assign.node], assign.lineno)
        for block in tree.find_all(nodes.AssignBlock):
            block.filter = nodes.Filter(
                block.filter, "string", [], [], None, None, lineno=block.lineno
            )
        tree.set_environment(self)

    def bounded(self, value: Any) -> Any:
        self.tick()
        if isinstance(value, (str, bytes, list, tuple, dict)) and len(value) > self._value_limit:
            raise TemplateError(
                f"the checkpoint's chat template made a value longer than {self._value_limit}"
            )
        return value

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        for one, other in ((left, right), (right, left)):
            length = len(other) if hasattr(other, "__len__") else 0
            if operator == "*" and isinstance(one, int) and one * length > self._value_limit:
                raise TemplateError(f"the checkpoint's chat template repeats a value {one} times")
        if operator == "**" and not (abs(left) <= _LARGEST_NUMBER and abs(right) <= 64):
            raise TemplateError("the checkpoint's chat template computes too large a power")
        if operator == "%" and isinstance(left, str):
            _check_widths(left)
        return self.bounded(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Any:
        safe = super().wrap_str_format(value)
        if safe is not None:
            _check_widths(value.__self__)
        return safe

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._check_arguments((*args, *kwargs.values()))
        return self.bounded(super().call(context, obj, *args, **kwargs))

    def _limited(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def limited(*args: Any, **kwargs: Any) -> Any:
            self._check_arguments((*args, *kwargs.values()))
            return self.bounded(function(*args, **kwargs))

        # Jinja2 keeps there which filters want its context.
        limited.__dict__.update(getattr(function, "__dict__", {}))
        return limited

    def _check_arguments(self, arguments: Iterable[Any]) -> None:
        for argument in arguments:
            if isinstance(argument, int) and abs(argument) > _LARGEST_NUMBER:
                raise TemplateError(
                    f"the checkpoint's chat template asks for {argument} of something"
                )

    @staticmethod
    def _call(method: str, args: Any, line: int) -> nodes.Call:
        return nodes.Call(nodes.EnvironmentAttribute(method), args, [], None, None, lineno=line)


def _check_widths(form: str) -> None:
    # Five digits, or a width that is an argument and so known only later.
    if re.search(r"\d{5}|\*|\{[^{}]*\{", form):
        raise TemplateError("the checkpoint's chat template formats with too large a width")


def _format(form: Any, *args: Any, **kwargs: Any) -> str:
    _check_widths(str(form))
    return str(form) % (kwargs or args)


def _tojson(value: Any, indent: int | None = None) -> str:
    # jinja2's own escapes <, > and & for web pages, which a prompt must not be.
    return json.dumps(value, ensure_ascii=False, indent=indent)
