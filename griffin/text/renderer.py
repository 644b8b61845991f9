"""The program that renders chat templates, in a process of its own; `RenderProcess` starts it.

A template is a program by whoever made the checkpoint. Here it has no files, no network and no
child processes, and only so much memory and processor time, all of it held by the system: what
Jinja's sandbox lets through ends here. Nothing of the package is imported, so it starts at once.

A frame on stdin (4 bytes of length, JSON) is answered by one on stdout (a letter, 4 bytes of
length, text): T what the template wrote, R its own refusal, E an error; a small letter is the
process's last.
"""

import json
import os
import re
import resource
import signal
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from importlib import import_module
from typing import Any, NoReturn

if __name__ == "__main__":
    sys.path += sys.argv[1:]

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

# Methods of a text, by what they return: a truth or a number; parts of the text, in their order.
_TELLING = frozenset(
    (
        *("startswith", "endswith", "find", "rfind", "index", "rindex", "count"),
        *(name for name in dir(str) if name.startswith("is")),
    )
)
_PARTING = frozenset(
    (
        *("split", "rsplit", "splitlines", "partition", "rpartition"),
        *("strip", "lstrip", "rstrip", "removeprefix", "removesuffix"),
    )
)
# What Jinja and str import by the way, which they cannot where no file opens.
_IMPORTED_LATE = (
    *("encodings.ascii", "encodings.latin_1", "encodings.unicode_escape", "jinja2.debug"),
    *("html", "pprint", "textwrap", "unicodedata"),
)
_LONGEST_ERROR = 1000
_KEPT = 32 << 20  # bytes beyond which memory is given back by starting anew


class Environment(ImmutableSandboxedEnvironment):
    """Jinja as transformers gives it to chat templates, but blind to `mark`.

    The mark is a character inside the messages, wherever they might be taken for control tokens.
    What a template compares, measures, searches or cuts is the text without marks; what it cuts
    out has the marks inside it and at its edges.
    """

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, "jinja2.ext.loopcontrols"],
            finalize=self._shown,
        )
        self.mark = "\ue000"
        del self.globals["lipsum"]
        self.globals.update(raise_exception=_refuse, dict=_Dict(), namespace=_Namespace)
        self.tests = {name: self._blind(test) for name, test in self.tests.items()}
        for name in ("length", "count", "wordcount"):
            self.filters[name] = self._blind(self.filters[name])
        self.filters.update(tojson=self._to_json, trim=self._trim, replace=self._replace)

    def compiled(self, source: str) -> jinja2.Template:
        """Compile a template. Raises what Jinja and Python do."""
        tree = _Blinding().visit(self.parse(source))
        tree.set_environment(self)
        return jinja2.Template.from_code(self, self.compile(tree), self.make_globals(None))

    def bare(self, value: Any) -> Any:
        """Return a text, or a list of texts, without marks; anything else as it is."""
        if self._marked(value):
            return value.replace(self.mark, "")
        if type(value) in (list, tuple) and any(map(self._marked, value)):
            return type(value)(map(self.bare, value))
        return value

    def cut(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """Return value[start:stop:step], with marks not counted."""
        part = slice(start, stop, step)
        if not self._marked(value) or step not in (None, 1):
            return value[part]
        first, last, _ = part.indices(len(self.bare(value)))
        return self._between(value, self._places(value), first, max(first, last))

    def getitem(self, obj: Any, argument: Any) -> Any:
        if self._marked(obj) and type(argument) is int:
            size = len(self.bare(obj))
            if -size <= argument < size:
                return self.cut(obj, argument % size, argument % size + 1, None)
        return super().getitem(obj, self.bare(argument))

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        text = getattr(obj, "__self__", None)
        if type(text) is str and any(map(self._marked, (text, *args))):
            named = {k: v for k, v in kwargs.items() if k not in ("_loop_vars", "_block_vars")}
            return self._method(obj.__name__, text, *args, **named)
        return super().call(context, obj, *args, **kwargs)

    def _method(self, name: str, text: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of a text with marks in it or in its arguments."""
        bare = self.bare(text)
        if name == "replace" and len(args) > 1 and self.bare(args[0]) and not kwargs:
            # What is put into a message is of the message: it becomes no control token either.
            new = args[1] if args[1].isspace() else self.mark.join(args[1])
            return new.join(self._method("split", text, args[0], *args[2:]))
        if name not in _TELLING | _PARTING:
            return getattr(text, name)(*args, **kwargs)
        result = getattr(bare, name)(*map(self.bare, args), **kwargs)
        if name in _TELLING:
            return result
        separator = self.bare(kwargs.get("sep", args[0] if args else None))
        gap = len(separator) if name in ("split", "rsplit") and separator else 0
        place = len(bare) - len(result) if name == "removeprefix" else 0
        places = self._places(text)
        parts: list[str] = []
        for part in [result] if isinstance(result, str) else result:
            start = bare.index(part, place)
            parts.append(self._between(text, places, start, start + len(part)))
            place = start + len(part) + gap
        return parts[0] if isinstance(result, str) else type(result)(parts)

    def _marked(self, value: Any) -> bool:
        return isinstance(value, str) and self.mark in value

    def _places(self, text: str) -> list[int]:
        """Return before which character, marks not counted, each mark stands."""
        return [m.start() - number for number, m in enumerate(re.finditer(self.mark, text))]

    @staticmethod
    def _between(text: str, places: list[int], start: int, stop: int) -> str:
        if start == stop:
            return ""
        return text[start + bisect_left(places, start) : stop + bisect_right(places, stop)]

    def _blind(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def blind(*args: Any, **kwargs: Any) -> Any:
            return function(*map(self.bare, args), **kwargs)

        # Jinja keeps there which functions want its context.
        blind.__dict__.update(getattr(function, "__dict__", {}))
        return blind

    def _shown(self, value: Any) -> Any:
        """Write a list as Python does, but for marks, which repr would escape."""
        if not isinstance(value, (list, tuple, dict)):
            return value
        return str(value).replace(self._escaped, self.mark)

    @property
    def _escaped(self) -> str:
        return f"\\u{ord(self.mark):04x}"

    def _trim(self, value: Any, chars: str | None = None) -> str:
        text = str(value)
        return self._method("strip", text, chars) if self._marked(text) else text.strip(chars)

    def _replace(self, s: Any, old: Any, new: Any, count: int | None = None) -> str:
        text, old, new, most = str(s), str(old), str(new), -1 if count is None else count
        if any(map(self._marked, (text, old, new))):
            return self._method("replace", text, old, new, most)
        return text.replace(old, new, most)

    def _to_json(
        self,
        x: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        written = json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        return written.replace(self._escaped, self.mark) if ensure_ascii else written


class _Blinding(NodeTransformer):
    """Let comparisons and slices see no marks."""

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        self.generic_visit(node)
        for holder in (node, *node.ops):
            holder.expr = _call("bare", [holder.expr], node.lineno)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        part, constant = node.arg, node.find(nodes.Name) is None
        if constant or not isinstance(part, nodes.Slice):
            return node
        bounds = [bound or nodes.Const(None) for bound in (part.start, part.stop, part.step)]
        return _call("cut", [node.node, *bounds], node.lineno)


def _call(method: str, args: list[nodes.Expr], line: int) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), args, [], None, None, lineno=line)


class _Generation(Extension):
    """`{% generation %} ... {% endgeneration %}`, a mark around replies for training: its body."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body, lineno=line)

    @staticmethod
    def _body(caller: Callable[[], str]) -> str:
        return caller()


class _Dict:
    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """Jinja's, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # no `self`, which may be a name, too
        values = dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace takes no name such as {name!r}")


class _Refused(Exception):
    """The template called raise_exception."""


def _refuse(message: object) -> NoReturn:
    raise _Refused(message)


def render(template: jinja2.Template, asked: dict[str, Any]) -> str:
    """Render a conversation as transformers would, without tools or documents."""
    limit = asked["characters"]
    pieces: list[str] = []
    for piece in template.generate(
        messages=[{"role": role, "content": content} for role, content in asked["messages"]],
        tools=None,
        documents=None,
        add_generation_prompt=asked["add_generation_prompt"],
        strftime_now=datetime.fromisoformat(asked["now"]).strftime,
        **asked["variables"],
    ):
        limit -= len(piece)
        if limit < 0:
            raise ValueError(f"wrote more than {asked['characters']} characters")
        pieces.append(piece)
    return "".join(pieces)


def main() -> None:
    """Answer until stdin ends."""
    for name in _IMPORTED_LATE:
        import_module(name)
    environment = Environment()
    compiled = lru_cache(maxsize=4)(environment.compiled)
    time.localtime()  # reads the time zone's file
    memory_used = _memory_meter()
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, also inside a call
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    for name in ("CORE", "FSIZE", "NPROC", "NOFILE"):
        with suppress(OSError, ValueError):  # not every system has each
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (0, 0))
    unlimited = resource.getrlimit(resource.RLIMIT_AS)[1]
    idle = memory_used()
    while head := sys.stdin.buffer.read(4):
        body = sys.stdin.buffer.read(int.from_bytes(head, "big"))
        asked = json.loads(body.decode("utf-8", "surrogatepass"))
        environment.mark = asked["mark"]
        if idle is not None:
            resource.setrlimit(resource.RLIMIT_AS, (idle + asked["memory"], unlimited))
        signal.setitimer(signal.ITIMER_PROF, asked["seconds"])
        letter, text = _answer(environment, compiled, asked)
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (unlimited, unlimited))
        last = (memory_used() or 0) > (idle or 0) + _KEPT
        answer = text.encode("utf-8", "surrogatepass")
        sys.stdout.buffer.write((letter.lower() if last else letter).encode())
        sys.stdout.buffer.write(len(answer).to_bytes(4, "big") + answer)
        sys.stdout.buffer.flush()
        if last:
            return


def _answer(
    environment: Environment, compiled: Callable[[str], jinja2.Template], asked: dict[str, Any]
) -> tuple[str, str]:
    """Compile and render; return the answer's letter and text."""
    verb = "does not compile"
    try:
        template = compiled(asked["source"])
        verb = "fails"
        return "T", "" if asked["messages"] is None else render(template, asked)
    except _Refused as error:
        return "R", environment.bare(str(error)[:_LONGEST_ERROR])
    except MemoryError:
        return "E", f"needs more than {asked['memory'] >> 20} MiB"
    # A template is a program: it can fail with whatever a program can.
    except Exception as error:
        text = f"{verb} ({type(error).__name__}: {error})"
        return "E", environment.bare(text[:_LONGEST_ERROR])


def _memory_meter() -> Callable[[], int | None]:
    """Return what tells the size of the address space; None but on Linux."""
    try:
        statm = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return lambda: None
    return lambda: int(os.pread(statm, 100, 0).split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
