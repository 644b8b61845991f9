"""Whether no value fits two JSON schemas, as far as that can be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from griffin.grammar.names import Names
from griffin.grammar.references import References, base_of, inner_schemas

_DEEP = 8
# The keywords that tell schemas apart.
TELLING = frozenset(
    {"type", "enum", "const", "required", "properties", "additionalProperties", "patternProperties"}
    | {"allOf", "anyOf", "oneOf", "$ref"}
)
_TYPES = frozenset({"object", "array", "string", "number", "boolean", "null"})


class Apart:
    """Compare schemas of one document."""

    def __init__(self, references: References, names: Names) -> None:
        self._references = references
        self._names = names

    def all(self, parts: Sequence[Any], base: str, around: frozenset[str] | None) -> bool:
        """Return whether what is said under one of several schemas never fits another.

        around: what names an object said under one has besides the schema's own; None if others.
        """
        return all(
            self._apart(one, base, other, base, 0) or self._lack(one, other, base, around)
            for one, other in combinations(parts, 2)
        )

    def reach(self, parts: Sequence[Any], base: str) -> list[str]:
        """Return the places that schemas refer to, one leading to another."""
        found: dict[str, None] = {}
        waiting: list[tuple[Any, str]] = [(part, base) for part in parts]
        while waiting:
            schema, base = waiting.pop()
            if not isinstance(schema, Mapping):
                continue
            base = base_of(schema, base)
            waiting += [(inner, base) for _, inner in inner_schemas(dict(schema))]
            target = self._references.find(schema.get("$ref"), base)
            if target is not None and target.place not in found:
                found[target.place] = None
                waiting.append((target.schema, target.base))
        return list(found)

    def _lack(self, one: Any, other: Any, base: str, around: frozenset[str] | None) -> bool:
        """Return whether objects of each, which have no other names, lack one that the other
        needs."""
        if around is None:
            return False
        first, second = self._names.of(one, base), self._names.of(other, base)
        if first.open or second.open or not (first.declared and second.declared):
            return False
        return not (
            self._needed(other, base) <= first.all() | around
            or self._needed(one, base) <= second.all() | around
        ) and all(self._kinds(part, base) == {"object"} for part in (one, other))

    def _needed(self, schema: Any, base: str) -> frozenset[str]:
        return self._names.of(schema, base).required

    def _kinds(self, schema: Any, base: str) -> frozenset[str]:
        schema, _ = self._resolved(schema, base)
        return _kinds(schema)

    def _resolved(self, schema: Any, base: str) -> tuple[Any, str]:
        for _ in range(_DEEP):
            if not isinstance(schema, Mapping):
                break
            base = base_of(schema, base)
            target = self._references.find(schema.get("$ref"), base)
            if target is None:
                break
            if _said(schema) - {"$ref"}:
                break
            schema, base = target.schema, target.base
        return schema, base

    def _apart(self, one: Any, base: str, other: Any, other_base: str, deep: int) -> bool:
        if deep > _DEEP:
            return False
        one, base = self._resolved(one, base)
        other, other_base = self._resolved(other, other_base)
        if one is False or other is False:
            return True
        if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
            return False
        if not _kinds(one) & _kinds(other):
            return True
        first, second = _values(one), _values(other)
        if first is not None and second is not None:
            return not any(_same(a, b) for a in first for b in second)
        for which, where, against, there in (
            (one, base, other, other_base),
            (other, other_base, one, base),
        ):
            for key in ("anyOf", "oneOf"):
                parts = which.get(key)
                if isinstance(parts, list) and all(
                    self._apart(part, where, against, there, deep + 1) for part in parts
                ):
                    return True
            parts = which.get("allOf")
            if isinstance(parts, list) and any(
                self._apart(part, where, against, there, deep + 1) for part in parts
            ):
                return True
        if _kinds(one) & _kinds(other) != {"object"}:
            return False
        return any(
            self._apart(_property(one, name), base, _property(other, name), other_base, deep + 1)
            for name in _required(one) | _required(other)
        )


def _said(schema: Mapping[str, Any]) -> set[str]:
    quiet = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
    return set(schema) - quiet - {"$comment", "$schema", "$id", "$defs", "definitions"}


def _kinds(schema: Any) -> frozenset[str]:
    kinds = schema.get("type", list(_TYPES)) if isinstance(schema, Mapping) else list(_TYPES)
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        return _TYPES
    found = frozenset("number" if kind == "integer" else kind for kind in kinds)
    return found if found <= _TYPES else _TYPES


def _values(schema: Mapping[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) and len(values) <= 64 else None


def _same(one: Any, other: Any) -> bool:
    """Return whether two values may be equal; true is not 1, and lists and objects may."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (list, dict)) or isinstance(other, (list, dict)):
        return type(one) is type(other)
    return one == other


def _property(schema: Mapping[str, Any], name: str) -> Any:
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and name in properties:
        return properties[name]
    if "patternProperties" in schema:
        return True
    return schema.get("additionalProperties", True)


def _required(schema: Mapping[str, Any]) -> set[str]:
    required = schema.get("required")
    return (
        {name for name in required if isinstance(name, str)}
        if isinstance(required, list)
        else set()
    )
