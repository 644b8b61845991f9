"""Whole numbers that are written with a point: `3.0` is an integer of JSON Schema, not of
msgspec."""

from __future__ import annotations

from typing import Any

from msgspec import inspect


def whole_numbers(value: Any, kind: inspect.Type) -> Any:
    """Return a decoded body in which they are ints, wherever its type asks for an int."""
    kinds = list(_members(kind))
    if isinstance(value, float):
        wanted = any(isinstance(one, inspect.IntType) for one in kinds)
        free = any(isinstance(one, (inspect.FloatType, inspect.AnyType)) for one in kinds)
        return int(value) if wanted and not free and value.is_integer() else value
    for one in kinds:
        if isinstance(value, list) and isinstance(one, inspect.ListType):
            return [whole_numbers(inner, one.item_type) for inner in value]
        if isinstance(value, dict) and isinstance(one, inspect.DictType):
            return {key: whole_numbers(inner, one.value_type) for key, inner in value.items()}
        if isinstance(value, dict) and isinstance(one, inspect.StructType):
            known = {field.encode_name: field.type for field in one.fields}
            return {
                key: whole_numbers(inner, known[key]) if key in known else inner
                for key, inner in value.items()
            }
    return value


def _members(kind: inspect.Type) -> list[inspect.Type]:
    if isinstance(kind, inspect.Metadata):
        return _members(kind.type)
    if isinstance(kind, inspect.UnionType):
        return [member for one in kind.types for member in _members(one)]
    return [kind]
