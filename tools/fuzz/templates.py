"""Chat templates, made up: rendered as transformers renders them, or ended within bounds.

A tame case is a public shape with a few changes, or a template put together from what templates do;
it is rendered by transformers, too. A hostile one asks for much of something, and only has to end.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from griffin.text.render_process import RenderProcess
from griffin.text.template import ChatTemplate, TemplateError
from tests.support.hostile_templates import ENDED, REFUSED
from tests.support.templates import CONTROL, LOOKS, VARIABLES, conversations, shapes, theirs

ALLOWED = (TemplateError,)

Talk = list[tuple[str, str]]


@dataclass(frozen=True)
class Case:
    """A template and a conversation; `tame` if transformers may try it as well."""

    source: str
    talk: Talk
    prompt: bool
    tame: bool

    def __str__(self) -> str:
        return f"{'tame' if self.tame else 'hostile'} {self.source[:300]!r} {self.talk!r:.300}"


_RENDERER = RenderProcess.shared()  # held, so that it is started once

_WORDS = (
    *("", "a", "eos", "word word", "\n", " \n x \t", "<", ">", "</think>", "<think>\nhm\n</think>"),
    *("e\u0301\U0001f600", "<|", "|>", "x" * 300, "{{ 1 }}", "%s {} \\", '"quoted"', "\u2028\x00"),
)
_PLAIN = (
    *("bos_token", "eos_token", "messages | length", "loop.index", "m.role", "m['content']", "7"),
    *("'</think>'", "none", "tools", "documents", "add_generation_prompt", "[1, 'a<eos>']", "true"),
    *("messages[0].content", "messages[-1]['content']", "strftime_now('%Y')", "m", "{'a': c}"),
    *("range(3) | list", "namespace(x=c).x", "dict(a=c)", "joiner('-')()", "m.none", "c", "n.t"),
)
_FILTERS = (
    *("trim", "upper", "lower", "tojson", "string", "length", "first", "last", "list", "join('<')"),
    *("replace('<', '>')", "default('d')", "indent(2)", "int", "reverse", "title", "safe", "e"),
    *("tojson(indent=1)", "tojson(ensure_ascii=true)", "sort", "unique | list", "wordcount"),
    *("truncate(9)", "center(20)", "format('<')", "urlencode", "batch(2) | list", "items | list"),
    *("select | list", "map('upper') | list", "map(attribute='content') | list", "striptags"),
)
_TESTS = (
    *("string", "none", "defined", "mapping", "iterable", "not none", "eq '<eos>'", "in ['<', c]"),
    *("number", "true", "odd", "lower", "sameas none", "not string", "sequence", "boolean"),
)
_BINARY = ("~", "+", "==", "!=", "in", "and", "or", "%", "*", "<", "not in", "//", "-")
_MUCH = (10**4, 10**5, 99_999, 10**6, 10**7, 10**9, 10**12, 2**31, 2**63, 10**30)


def make(chance: random.Random) -> Case:
    """Return a case: of ten, four of made-up statements, four changed shapes, two hostile."""
    kind = chance.choices((_made, _changed, _hostile), (4, 4, 2))[0]
    talk = chance.choice(conversations()) if chance.random() < 0.5 else _talk(chance)
    return Case(kind(chance), talk, chance.random() < 0.7, kind is not _hostile)


def attempt(case: Case) -> None:
    """Render; compare with transformers, if the template is tame."""
    try:
        template = ChatTemplate(case.source, CONTROL, VARIABLES)
        segments = template.segments(case.talk, case.prompt)
    except TemplateError as error:
        if case.tame and "rendered safely" not in str(error) and "more than" not in str(error):
            assert _theirs(case) is None, f"transformers renders what was refused: {error}"
        raise
    text = "".join(segments)
    if case.tame:
        assert _theirs(case) == text, "another text than transformers'"
    assert not any("\ue000" <= character <= "\uf8ff" for character in text)


def _theirs(case: Case) -> str | None:
    try:
        return theirs(case.source, case.talk, case.prompt)
    except Exception:  # whatever a program can raise
        return None


def _talk(chance: random.Random) -> Talk:
    contents = [
        "".join(chance.choices((*_WORDS, *CONTROL), k=chance.randrange(4))) for _ in range(5)
    ]
    talk = [(("user", "assistant")[n % 2], content) for n, content in enumerate(contents)]
    talk = talk[: chance.choice((1, 3, 5))]
    return [("system", chance.choice(_WORDS)), *talk] if chance.random() < 0.3 else talk


def _made(chance: random.Random) -> str:
    body = "".join(_statement(chance, 2) for _ in range(chance.randrange(1, 6)))
    start = "{% set n = namespace(t='') %}{% set c = messages[0].content %}"
    loop = "{% for m in messages %}{% set c = m.content %}"
    return f"{start}{loop}{body}{{% endfor %}}{_statement(chance, 1).replace('m.', 'messages[0].')}"


def _statement(chance: random.Random, depth: int) -> str:
    kinds = ("data", "output", "output", "output", "set", "if", "for", "macro", "n", "block", "gen")
    kind = chance.choice(kinds if depth else kinds[:5])
    left, right = chance.choice(("", "-")), chance.choice(("", "-"))
    begin, end = f"{{%{left} ", f" {right}%}}"
    if kind == "data":
        return chance.choice((*CONTROL, "\n", "\n  ", " text ", "<", ">", "user\n"))
    if kind == "output":
        return f"{{{{{left} {_expression(chance, depth)} {right}}}}}"
    if kind == "set":
        return f"{begin}set c = {_expression(chance, depth)}{end}"
    if kind == "n":
        return f"{begin}set n.t = n.t ~ {_expression(chance, 1)}{end}{{{{ n.t }}}}"
    inner = "".join(_statement(chance, depth - 1) for _ in range(chance.randrange(1, 3)))
    if kind == "if":
        other = f"{begin}else{end}{_statement(chance, 0)}"
        return f"{begin}if {_expression(chance, depth)}{end}{inner}{other}{begin}endif{end}"
    if kind == "for":
        over = chance.choice(("range(3)", "c.split('<')", "messages[::-1]", "[c, c]", "m.items()"))
        stop = chance.choice(("", "{% if loop.last %}{% continue %}{% endif %}", "{% break %}"))
        return f"{begin}for i in {over}{end}{stop}{inner}{begin}endfor{end}"
    if kind == "macro":
        called = f"{{{{ f({_expression(chance, 1)}) }}}}"
        return f"{begin}macro f(c){end}{inner}{begin}endmacro{end}{called}"
    if kind == "gen":
        return f"{begin}generation{end}{inner}{begin}endgeneration{end}"
    return f"{begin}set d{end}{inner}{begin}endset{end}{{{{ d | trim }}}}"


def _expression(chance: random.Random, depth: int) -> str:
    if not depth or chance.random() < 0.3:
        return chance.choice((*_PLAIN, *LOOKS, *LOOKS))
    inner = _expression(chance, depth - 1)
    way = chance.randrange(6)
    if way == 0:
        return f"({inner}) | {chance.choice(_FILTERS)}"
    if way == 1:
        return f"({inner}) {chance.choice(_BINARY)} ({_expression(chance, depth - 1)})"
    if way == 2:
        return f"({inner}) is {chance.choice(_TESTS)}"
    if way == 3:
        return f"(({inner}) if {_expression(chance, 0)} else {_expression(chance, 0)})"
    if way == 4:
        return f"({inner})[{chance.choice(('0', '-1', '1:', ':-1', ':7', '::-1', '2:5'))}]"
    return re.sub(r"\bc\b", lambda _: f"({inner})", chance.choice(LOOKS), count=1)


def _changed(chance: random.Random) -> str:
    source = chance.choice(list(shapes().values()))
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        place = chance.randrange(len(source) + 1)
        stop = min(len(source), place + chance.choice((1, 3, 20)))
        other = chance.choice(list(shapes().values()))
        start = chance.randrange(len(other))
        piece = chance.choice(
            ("", other[start : start + chance.choice((1, 10, 60))], _statement(chance, 1))
        )
        source = source[:place] + piece + source[stop if chance.random() < 0.5 else place :]
    return source


def _hostile(chance: random.Random) -> str:
    much, more, most = (chance.choice(_MUCH) for _ in range(3))
    text = chance.choice(
        (f"('a' * {much})", f"('a\t\n<' * {much})", "c", f"(range({much}) | list)")
    )
    ways = (
        *(f"{text} | replace('a', 'b' * {more})", f"{text}.replace('a', 'b' * {more})"),
        *(
            f"{text} | join('b' * {more})",
            f"('b' * {more}).join({text})",
            f"{text} | indent({more})",
        ),
        *(f"{text}.expandtabs({more})", f"{text} | center({more})", f"{text}.ljust({more})"),
        *(
            f"{text} | wordwrap({chance.choice((1, more))}, wrapstring='b' * {most})",
            f"{text} * {more}",
        ),
        *(
            f"[{text}, [{text}]] | tojson(indent={more})",
            f"{text} | tojson",
            f"{text}.zfill({more})",
        ),
        *(f"'%{more}d' % 1", f"'{{:>{more}}}'.format(1)", f"{much} ** {more} ** {most}"),
        *(f"range({much}) | batch({more}, 'x') | list", f"range(9) | slice({more}, 1) | list"),
        *(f"{text}.encode('utf-16') * {more}", f"{text}.translate({{97: 'b' * {more}}})"),
        *(f"{text} | sort | map('string') | join | urlize", f"{text} ~ {text} | title | striptags"),
        *(
            f"({text}, {text}) | pprint",
            f"{text}.split('a') * {more}",
            f"{text} | list | groupby('x')",
        ),
    )
    way = chance.choice(ways)
    count = chance.choice((20, 99, 99_999))
    repeat = chance.choice((1, 1, 50, 3000, 30_000, 200_000))
    sign, loop = chance.choice("~+*"), f"{{% for i in range({count}) %}}"
    return chance.choice(
        (
            f"{{{{ {way} }}}}",
            f"{{% set c = messages[0].content %}}{{% set x = {way} %}}{{{{ x | length }}}}",
            f"{{% set n = namespace(x={text}) %}}{loop}{{% set n.x = n.x {sign} n.x %}}"
            "{% endfor %}{{ n.x }}",
            "{% macro f(c, n) %}{% if n %}{% set x = f(c, n - 1) %}{{ x ~ x }}{% else %}"
            f"{{{{ {text} }}}}{{% endif %}}{{% endmacro %}}{{{{ f('a', {count}) }}}}",
            (deep := chance.randrange(1, 25)) * loop + f"{{{{ {way} }}}}" + "{% endfor %}" * deep,
            f"{loop}{loop}{{% endfor %}}{{% endfor %}}",
            f"{{{{ {way} }}}}" * repeat,
            "{{ " + chance.choice(("(", "[", "not ", "-", "'a'~", "1+", "{1:")) * repeat + "1 }}",
            "{% if c %}" * repeat + "{% endif %}" * repeat,
            chance.choice([*REFUSED.values(), *ENDED.values()]),
        )
    )
