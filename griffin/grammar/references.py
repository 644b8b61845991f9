"""Where a JSON schema's `$ref` leads, within the document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote, urldefrag, urljoin

# Keywords whose value is a schema, a list of them, an object of them.
ONE = (
    *("additionalProperties", "items", "additionalItems", "propertyNames", "contains", "not", "if"),
    *("then", "else", "unevaluatedProperties", "unevaluatedItems", "contentSchema"),
)
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
OBJECTS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")


class Target(NamedTuple):
    """A schema that is referred to: where it stands, and the base of references in it."""

    place: str
    schema: Any
    base: str


class References:
    """The schemas of one document by their addresses. Nothing is fetched."""

    def __init__(self, root: Any) -> None:
        self._known: dict[str, Target] = {"": Target("", root, "")}
        self._learn(root, "", "", set())

    def find(self, reference: Any, base: str) -> Target | None:
        """Return what a reference names; None if it is not in the document.

        base: of the schema that it stands in, as `base_of` has it.
        """
        if not isinstance(reference, str):
            return None
        address, fragment = urldefrag(_joined(base, reference))
        if fragment and not fragment.startswith("/"):
            return self._known.get(f"{address}#{fragment}")
        target = self._known.get(address)
        if target is None:
            return None
        place, schema, base = target
        for part in fragment.split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(schema, dict) and key in schema:
                schema, place = schema[key], joined(place, key)
            elif isinstance(schema, list) and key.isdecimal() and int(key) < len(schema):
                schema, place = schema[int(key)], f"{place}[{int(key)}]"
            else:
                return None
            base = base_of(schema, base)
        return Target(place, schema, base)

    def _learn(self, schema: Any, place: str, base: str, seen: set[int]) -> None:
        if not isinstance(schema, dict) or id(schema) in seen:
            return
        seen.add(id(schema))
        base = base_of(schema, base)
        if isinstance(schema.get("$id"), str):
            self._known.setdefault(urldefrag(base)[0], Target(place, schema, base))
        for word in ("$anchor", "$dynamicAnchor"):
            if isinstance(anchor := schema.get(word), str):
                self._known.setdefault(f"{base}#{anchor}", Target(place, schema, base))
        for inner_place, inner in inner_schemas(schema, place):
            self._learn(inner, inner_place, base, seen)


def base_of(schema: Any, base: str) -> str:
    """Return the base of references in a schema that stands where the base is `base`."""
    own = schema.get("$id") if isinstance(schema, dict) else None
    return urldefrag(_joined(base, own))[0] if isinstance(own, str) else base


def joined(place: str, key: str) -> str:
    """Return the place of something within a place."""
    return f"{place}.{key}" if place else key


def inner_schemas(schema: dict[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Go through the schemas directly within one, each with its place."""
    for key, value in schema.items():
        where = joined(place, key)
        if key in OBJECTS and isinstance(value, dict):
            yield from ((joined(where, name), inner) for name, inner in value.items())
        elif key in LISTS and isinstance(value, list):
            yield from ((f"{where}[{n}]", inner) for n, inner in enumerate(value))
        elif key in ONE:
            yield where, value


def _joined(base: str, reference: str) -> str:
    try:
        return urljoin(base, reference)
    except ValueError:  # "//["
        return reference
