"""Where a body is not what it should be, and what should stand there.

msgspec says so in a text, and its texts change from version to version. Here it only answers
whether ever smaller parts of the body fit; the words are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec
from msgspec import inspect

from griffin.server.protocol.bounds import IN_WORDS

ABSENT = object()


class Fault(NamedTuple):
    """The smallest part of a body that does not fit.

    path:     "messages[0].role"; "" for the whole.
    value:    what stands there, ABSENT for a field that is missing.
    expected: what should, in words.
    inside:   "a key of " or "a value in " where the part has no path of its own, only the object
              that holds it: such keys are the client's.
    """

    path: str
    value: Any
    expected: str
    inside: str = ""


class _Part(NamedTuple):
    path: str
    value: Any
    kind: Any
    inside: str = ""


def find_fault(value: Any, kind: Any) -> Fault | None:
    """Return what in a decoded body does not fit a type, None if everything does."""
    return _find(_Part("", value, kind))


def _find(part: _Part) -> Fault | None:
    if part.value is not ABSENT:
        if _fits(part.value, part.kind):
            return None
        for inner in _parts(part):
            if (found := _find(inner)) is not None:
                return found
    return Fault(part.path, part.value, _expected(part.kind, part.value), part.inside)


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _parts(part: _Part) -> Iterator[_Part]:
    """Go through what a value holds; of a list's and an object's entries, the first that is
    wrong."""
    path, value = part.path, part.value
    for kind in _members(part.kind):
        of = get_args(kind)
        if isinstance(value, list) and get_origin(kind) is list:
            (items,) = of
            for at in _first_unfit(value, items):
                yield _Part(f"{path}[{at}]", value[at], items)
        elif isinstance(value, dict) and get_origin(kind) is dict:
            keys, entries = list(value), list(value.values())
            for at in _first_unfit(keys, of[0]):
                yield _Part(path, keys[at], of[0], "a key of ")
            for at in _first_unfit(entries, of[1]):
                yield _Part(path, entries[at], of[1], "a value in ")
        elif isinstance(value, dict) and hasattr(kind, "__struct_fields__"):
            for field in msgspec.structs.fields(kind):
                name = field.encode_name
                if name in value or field.required:
                    where = f"{path}.{name}" if path else name
                    yield _Part(where, value.get(name, ABSENT), field.type)


def _members(kind: Any) -> Iterator[Any]:
    """Go through the types of which one will do."""
    if get_origin(kind) is Annotated:
        yield from _members(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for member in get_args(kind):
            yield from _members(member)
    else:
        yield kind


def _first_unfit(values: list[Any], kind: Any) -> tuple[int, ...]:
    """Return the place of the first value that does not fit, if any.

    By halves: a million ids one after another would take seconds.
    """
    if _fits(values, list[kind]):
        return ()
    first, end = 0, len(values)
    while end - first > 1:
        middle = (first + end) // 2
        if _fits(values[first:middle], list[kind]):
            first = middle
        else:
            end = middle
    return (first,)


def _expected(kind: Any, value: Any) -> str:
    """Describe a type; where one of its members is of the value's own sort, only that one."""
    members = list(_described(inspect.type_info(kind)))
    alike = [member for member in members if isinstance(member, _sorts(value))]
    return " or ".join(_words(member) for member in alike or members)


def _described(kind: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.Metadata):
        yield from _described(kind.type)
    elif isinstance(kind, inspect.UnionType):
        for member in kind.types:
            yield from _described(member)
    else:
        yield kind


def _sorts(value: Any) -> tuple[type[inspect.Type], ...]:
    if isinstance(value, bool):
        return (inspect.BoolType,)
    if isinstance(value, (int, float)):
        return (inspect.IntType, inspect.FloatType)
    if isinstance(value, str):
        return (inspect.StrType, inspect.LiteralType)
    if isinstance(value, list):
        return (inspect.ListType,)
    return (inspect.StructType, inspect.DictType) if isinstance(value, dict) else ()


def _words(kind: inspect.Type) -> str:
    match kind:
        case inspect.NoneType():
            return "null"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return f"a whole number{_span(kind.ge, kind.le)}"
        case inspect.FloatType():
            return f"a number{_span(kind.ge, kind.le)}"
        case inspect.LiteralType():
            return f"one of {', '.join(map(str, kind.values))}"
        case inspect.StrType():
            length = _length(kind.min_length, kind.max_length, "characters")
            return IN_WORDS.get(kind.pattern or "", f"a string{length}")
        case inspect.ListType():
            return f"a list{_length(kind.min_length, kind.max_length, 'entries')}"
        case inspect.DictType():
            return f"an object{_length(kind.min_length, kind.max_length, 'entries')}"
        case _:
            return "an object"


def _span(least: float | None, most: float | None) -> str:
    return "" if least is None or most is None else f" from {least} to {most}"


def _length(least: int | None, most: int | None, of: str) -> str:
    if most is None:
        return f" of {least} or more {of}" if least else ""
    return f" of {least} to {most} {of}" if least else f" of at most {most} {of}"
