"""Chat templates that mean harm: to be refused, or to end one way or the other."""

from __future__ import annotations

_MACRO = (
    "{% macro f(n) %}{% if n %}{% set x = f(n - 1) %}{{ x ~ x }}{% else %}0123456789{% endif %}"
)
_LOOP = "{% for i in range(99999) %}"

REFUSED = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "append": "{{ messages.append(1) }}",
    "globals": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "underscore": "{% set n = namespace(_x=1) %}",
    "repeat": "{{ 'a' * 10000000000 }}",
    "power": "{{ 10 ** 10 ** 10 * 'a' }}",
    "ljust": "{{ 'a'.ljust(10000000000) }}",
    "zfill": "{{ 'a'.zfill(10000000000) }}",
    "center": "{{ 'a' | center(10000000000) }}",
    "center-method": "{{ 'a'.center(10000000000) }}",
    "format": "{{ '{:>9999999999}'.format(1) }}",
    "format-nested": "{{ '{:>{w}}'.format(1, w='9999999999') }}",
    "format-map": "{{ '{a:>9999999999}'.format_map({'a': 1}) }}",
    "percent": "{{ '%9999999999d' % 1 }}",
    "format-filter": "{{ '%9999999999d' | format(1) }}",
    "replace": "{{ ('a' * 4000) | replace('a', 'b' * 1000000) }}",
    "replace-method": "{{ ('a' * 4000).replace('a', 'b' * 1000000) }}",
    "replace-empty": "{{ ('a' * 4000).replace('', 'b' * 1000000) }}",
    "join": "{{ range(100000) | join('b' * 100000) }}",
    "join-method": "{{ ('b' * 100000).join('a' * 100000) }}",
    "indent": "{{ ('a\n' * 100000) | indent(1000000) }}",
    "expandtabs": "{{ ('\t' * 100000).expandtabs(1000000) }}",
    "wordwrap": "{{ ('a ' * 400000) | wordwrap(1, wrapstring='b' * 100000) }}",
    "tojson": "{{ [[[[range(100000) | list]]]] | tojson(indent=100000) }}",
    "translate": "{{ ('a' * 100000).translate({97: 'b' * 100000}) }}",
    "encode": "{{ ('a' * 90000000).encode('utf-16') }}",
    "batch": "{{ range(10) | batch(1000000000, 'x') | list }}",
    "slice": "{{ range(10) | slice(1000000000, 'x') | list }}",
    "xmlattr": "{{ {'a': 'b' * 40000000, 'c': '&' * 40000000} | xmlattr }}",
    "lipsum": "{{ lipsum(1000) }}",
    "macro": _MACRO + "{% endmacro %}{{ f(40) }}",
    "namespace": (
        "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor"
        " %}"
    ),
    "list": (
        "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor"
        " %}"
    ),
    "nested-list": (
        "{% set n = namespace(x=[1]) %}" + _LOOP + "{% set n.x = [n.x, 'a' * i] %}{% endfor %}"
    ),
    "dict": (
        "{% set n = namespace(x={}) %}"
        + _LOOP
        + "{% set n.x = dict(n.x, **{'a' ~ i: n.x}) %}{% endfor %}"
    ),
    "integer": (
        "{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}"
    ),
    "output": _LOOP + "{{ 'a' * 1000 }}{% endfor %}",
    "loops": _LOOP + _LOOP + "{% endfor %}{% endfor %}",
    "branches": "{% macro f(n) %}{{ f(n - 1) if n }}{{ f(n - 1) if n }}{% endmacro %}{{ f(60) }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "blocks": "{% block a %}{{ self.a() }}{% endblock %}",
    "refusal": "{{ raise_exception('a' * 30000000) }}",
    "expressions": "{{ 1 }}" * 300_000,
    "parentheses": "{{ " + "(" * 60_000 + "1" + ")" * 60_000 + " }}",
    "brackets": "{{ " + "[" * 20_000 + "1" + "]" * 20_000 + " }}",
    "ifs": "{% if 1 %}" * 6_000 + "{% endif %}" * 6_000,
    "fors": "{% for x in range(9) %}" * 90 + "{% endfor %}" * 90,
    "nots": "{{ " + "not " * 30_000 + "1 }}",
    "sums": "{{ " + "1+" * 60_000 + "1 }}",
    "attributes": "{{ a" + ".a" * 60_000 + " }}",
    "filters": "{{ 'a'" + "|trim" * 20_000 + " }}",
    "zero": "{{ 1 / 0 }}",
    "torn": "{% for %}",
    "include": "{% include 'x' %}",
    "import": "{% import 'x' as y %}",
    "extends": "{% extends 'x' %}",
}
# Heavy, but within the limits on some machines.
ENDED = {
    "many": "{{1}}" * 26_000,
    "tildes": "{{ " + "'a'~" * 30_000 + "'a' }}",
    "urlize": "{{ ('a.' * 400000) | urlize }}",
    "striptags": "{{ ('<' * 400000) | striptags }}",
    "find": "{{ ('a' * 4000000).find('a' * 2000000 ~ 'b') }}",
    "title": "{{ ('a ' * 4000000) | title }}",
    "sort": "{{ range(99999) | map('string') | sort | join | list | sort | join | list | sort }}",
    "int": "{{ ('9' * 4000000) | int }}",
    "groupby": "{{ (range(99999) | list * 500) | groupby('real') }}",
    "pprint": "{{ [range(99999) | list] | pprint }}",
}
