"""The shape of a body's Struct, to find what it does not know: msgspec itself passes over that in
silence."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect


class Shape(NamedTuple):
    """What a value may hold.

    fields: of an object, by their JSON names; None where any key goes.
    items:  of a list; None where they are not looked into.
    """

    fields: dict[str, Shape] | None = None
    items: Shape | None = None


class Extra(NamedTuple):
    """A key that its Struct does not have.

    place: the key's path with list positions left out, "messages[].audio". path: with them.
    """

    place: str
    path: str
    value: Any


@cache
def shape_of(kind: type[msgspec.Struct]) -> Shape:
    """Return the shape of a Struct and all that it holds."""
    return _shape(inspect.type_info(kind))


def extras(value: Any, shape: Shape, place: str = "", path: str = "") -> Iterator[Extra]:
    """Find every key of a decoded body that its Struct does not have, at any depth."""
    if isinstance(value, dict) and shape.fields is not None:
        for key, inner in value.items():
            name, where = (f"{place}.{key}", f"{path}.{key}") if path else (key, key)
            known = shape.fields.get(key)
            if known is None:
                yield Extra(name, where, inner)
            elif known.fields is not None or known.items is not None:
                yield from extras(inner, known, name, where)
    elif isinstance(value, list) and shape.items is not None:
        for index, inner in enumerate(value):
            yield from extras(inner, shape.items, f"{place}[]", f"{path}[{index}]")


def _shape(kind: inspect.Type) -> Shape:
    if isinstance(kind, inspect.StructType):
        return Shape(fields={field.encode_name: _shape(field.type) for field in kind.fields})
    if isinstance(kind, inspect.ListType):
        item = _shape(kind.item_type)
        return Shape(items=item if item.fields is not None or item.items is not None else None)
    if isinstance(kind, inspect.UnionType):
        members = [_shape(member) for member in kind.types]
        return Shape(
            fields=next((member.fields for member in members if member.fields is not None), None),
            items=next((member.items for member in members if member.items is not None), None),
        )
    return Shape()
