"""Which names the objects of a JSON schema may have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from griffin.grammar.references import References, base_of

_EITHER = ("anyOf", "oneOf")
_PERHAPS = ("if", "then", "else", "not")


@dataclass(frozen=True)
class Found:
    """The names in a schema and in all that is applied to the same object.

    declared: those with a schema of their own. required: those that must be there.
    open:     it says itself what other names may be there, or that none may.
    forks:    one of several schemas is applied within what applies in any case.
    """

    declared: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    open: bool = False
    forks: bool = False

    def all(self) -> frozenset[str]:
        return self.declared | self.required


class Names:
    """Find the names in schemas of one document."""

    def __init__(self, references: References) -> None:
        self._references = references

    def of(self, schema: Any, base: str) -> Found:
        """Return the names in a schema. base: of the references in it."""
        return self._find(schema, base, set(), True)

    def _find(self, schema: Any, base: str, seen: set[tuple[int, str]], first: bool) -> Found:
        if not isinstance(schema, dict) or (id(schema), base) in seen:
            return Found()
        seen.add((id(schema), base))
        base = base_of(schema, base)
        properties = schema.get("properties")
        declared = set(properties) if isinstance(properties, dict) else set[str]()
        needed = {name for name in _list(schema.get("required")) if isinstance(name, str)}
        open_ = "additionalProperties" in schema or (not first and "patternProperties" in schema)
        open_ = open_ or schema.get("unevaluatedProperties", False) is not False
        forks = not first and any(key in schema for key in (*_EITHER, "if"))
        for inner, inner_base in self._always(schema, base):
            found = self._find(inner, inner_base, seen, False)
            declared |= found.declared
            needed |= found.required
            open_, forks = open_ or found.open, forks or found.forks
        for inner in self._perhaps(schema):
            declared |= self._find(inner, base, seen, False).all()
        return Found(frozenset(declared), frozenset(needed), open_, forks)

    def _always(self, schema: dict[str, Any], base: str) -> list[tuple[Any, str]]:
        applied = [(part, base) for part in _list(schema.get("allOf"))]
        target = self._references.find(schema.get("$ref"), base)
        if target is not None:
            applied.append((target.schema, target.base))
        return applied

    def _perhaps(self, schema: dict[str, Any]) -> list[Any]:
        parts = [part for key in _EITHER for part in _list(schema.get(key))]
        parts += [schema[key] for key in _PERHAPS if key in schema]
        dependent = schema.get("dependentSchemas")
        return [*parts, *(dependent.values() if isinstance(dependent, dict) else ())]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
