"""A JSON schema to one of keywords that llguidance holds to exactly.

What is written here is as wide as the schema or narrower, never wider: an answer that fits the one
fits the other. What has no such form is refused, or passed over and told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from griffin.grammar import formats, numbers
from griffin.grammar.apart import TELLING, Apart
from griffin.grammar.endless import close_endless
from griffin.grammar.keywords import MOST_STEPS, SIMPLE, SchemaPart, say
from griffin.grammar.names import Names
from griffin.grammar.references import References, base_of, joined

# What asks for something, and is held to only where it asks for nothing or has another form.
_NEVER = (
    *("not", "if", "contains", "dependentSchemas", "dependentRequired", "dependencies"),
    *("unevaluatedProperties", "unevaluatedItems", "uniqueItems", "propertyNames"),
    "$dynamicRef",
)
_APPLIED = ("$ref", "$recursiveRef", "allOf", "anyOf", "oneOf")
_INNER = (*("properties", "patternProperties", "additionalProperties"), "prefixItems", "items")
_SAID = frozenset((*_NEVER, *_APPLIED, *SIMPLE, *_INNER, "type", "additionalItems"))
# Control characters that only \u00XX writes. Where a schema has none, no such escape is needed, and
# then each name has one spelling.
_CONTROLS = re.compile(r"\\u00(?:0[0-7bef]|1[0-9a-f])")
_MOST_DEFINITIONS = 2000


class HeldSchema:
    """What is held to in place of a schema.

    schema:      without its definitions; `whole` has them.
    passed:      places in the schema that are not held to.
    places:      where the parts of what is held to come from, by their id().
    said:        what the schema calls a keyword of such a part, where it has another name.
    escapes:     the letters that may follow a backslash in a string.
    """

    def __init__(self, schema: Mapping[str, Any], *, lenient: bool) -> None:
        """Rewrite a schema.

        lenient: pass over what cannot be held to; otherwise a ValueError names it.
        """
        self.passed: dict[str, None] = {}
        self.places: dict[int, str] = {}
        self.definitions: dict[str, Any] = {}
        self._lenient = lenient
        self._references = References(schema)
        self._names = Names(self._references)
        self._apart = Apart(self._references, self._names)
        self.said: dict[tuple[int, str], str] = {}
        self._parted: dict[str, list[str]] = {}
        self._named: dict[Any, str] = {}
        self._steps: set[int] = set()
        self._controls = _CONTROLS.search(json.dumps(schema)) is not None
        self.escapes = 'nrbtf\\"u' if self._controls else 'nrbtf\\"'
        made = self._schema(schema, "", "", frozenset())
        close_endless(self.definitions)
        self.schema: dict[str, Any] = made if isinstance(made, dict) else {"enum": []}

    def whole(self) -> dict[str, Any]:
        """Return the schema with its definitions."""
        return {**self.schema, "$defs": self.definitions} if self.definitions else self.schema

    def pass_over(self, place: str, why: str) -> None:
        """Note a place that is not held to; ValueError if all must be."""
        if not self._lenient:
            raise ValueError(f"{place or 'the schema'} cannot be held to: {why}")
        self.passed[place] = None

    def takes_step(self, digits: int) -> bool:
        """Return whether numbers may be multiples of one more, by its digits."""
        if sum(self._steps | {digits}) > MOST_STEPS:
            return False
        self._steps.add(digits)
        return True

    def settle(self) -> None:
        """Note the `oneOf`s whose parts are told apart by what is not held to."""
        for place, within in self._parted.items():
            if any(
                inner.rpartition(".")[2] in TELLING and _is_within(inner, outer)
                for inner in tuple(self.passed)
                for outer in (f"{place}[", *within)
            ):
                self.pass_over(place, "its parts may overlap")

    def _schema(self, schema: Any, place: str, base: str, around: frozenset[str] | None) -> Any:
        """Rewrite a part.

        around: names that its objects may have besides its own; None where it is one of several
                parts that an object must fit, and is not to be closed by itself.
        """
        if isinstance(schema, bool):
            return {} if schema else False
        if not isinstance(schema, Mapping):
            self.pass_over(place, "it is no schema")
            return {}
        base = base_of(schema, base)
        said = [key for key in schema if key in _SAID]
        if said in (["$ref"], ["$recursiveRef"]):
            return self._reference(schema[said[0]], joined(place, said[0]), base, around)
        parts = schema.get("allOf")
        if said == ["allOf"] and isinstance(parts, list) and len(parts) == 1:
            return self._schema(parts[0], joined(place, "allOf[0]"), base, around)
        names = self._closing(schema, base, around)
        part = SchemaPart(schema, {}, place, base, around, names)
        self.places[id(part.made)] = place
        for key in said:
            if key != "type":
                self._keyword(part, key)
        if "type" in schema and "enum" not in part.made:  # values of other types are gone already
            say(self, part, "type", schema["type"])
        if part.names is not None and not schema.keys() & {"anyOf", "oneOf"}:
            self._close(part, part.names)
        return part.made

    def _keyword(self, part: SchemaPart, key: str) -> None:
        value = part.schema[key]
        if key in _APPLIED:
            self._applied(part, key, value)
        elif key in _INNER:
            self._inner(part, key, value)
        elif key in SIMPLE:
            say(self, part, key, value)
        elif key == "propertyNames":
            self._property_names(part, value)
        elif key != "additionalItems" and not self._asks_nothing(part, key, value):
            self.pass_over(part.at(key), "no grammar does")

    # Which names an object may have.

    def _closing(
        self, schema: Mapping[str, Any], base: str, around: frozenset[str] | None
    ) -> frozenset[str] | None:
        found = self._names.of(schema, base)
        least = numbers.whole(schema.get("minProperties")) or 0
        names = (around or frozenset()) | found.all()
        if around is None or not (found.declared or around or "properties" in schema):
            return None
        if found.open and not (self._controls and schema.get("additionalProperties", True)):
            return None
        return names if least <= len(names) else None

    def _close(self, part: SchemaPart, names: frozenset[str]) -> None:
        if "object" not in part.made.get("type", "object"):
            return
        properties = part.made.setdefault("properties", {})
        rest = part.schema.get("additionalProperties", True)
        for name in sorted(names - properties.keys()):
            place = part.at("additionalProperties")
            properties[name] = self._schema(rest, place, part.base, frozenset())
        part.made["additionalProperties"] = False

    def _reference(
        self, value: Any, place: str, base: str, around: frozenset[str] | None
    ) -> dict[str, Any]:
        target = self._references.find(value, base)
        if target is None:
            self.pass_over(place, "it leads to nothing in the schema")
            return {}
        key = (id(target.schema), target.base, around)
        if key not in self._named:
            name = self._named[key] = f"d{len(self._named)}"
            if len(self._named) > _MOST_DEFINITIONS:
                raise ValueError("its references multiply beyond what can be held to")
            inner = self._schema(target.schema, target.place, target.base, around)
            self.definitions[name] = inner
        made = {"$ref": f"#/$defs/{self._named[key]}"}
        self.places[id(made)] = place.rpartition("$")[0].removesuffix(".")
        return made

    def add(self, part: SchemaPart, key: str, value: Any, said: str) -> None:
        """Add a keyword; where there is one already, both hold. said: what the schema calls it."""
        made = part.made
        if key in made:
            made = {}
            self.places[id(made)] = part.place
            part.made.setdefault("allOf", []).append(made)
        made[key] = value
        self.said[id(made), key] = said

    # Keywords that apply schemas to the same value.

    def _applied(self, part: SchemaPart, key: str, value: Any) -> None:
        if key in ("$ref", "$recursiveRef"):
            reference = self._reference(value, part.at(key), part.base, None)
            if reference:
                self.add(part, "$ref", reference["$ref"], key)
            return
        if not isinstance(value, list):
            self.pass_over(part.at(key), "it is a list of schemas")
            return
        around = None if key == "allOf" else self._beside(part, key)
        made = [
            self._schema(inner, f"{part.at(key)}[{number}]", part.base, around)
            for number, inner in enumerate(value)
        ]
        if key == "oneOf":
            if not self._apart.all(value, part.base, around):
                self.pass_over(part.at(key), "its parts may overlap")
            else:
                self._parted[part.at(key)] = self._apart.reach(value, part.base)
        if key == "allOf":
            part.made.setdefault("allOf", []).extend(made)
        else:
            self.add(part, "anyOf", made, key)

    def _beside(self, part: SchemaPart, key: str) -> frozenset[str] | None:
        """Return the names that stand beside those of one of several schemas."""
        if part.names is None or part.around is None:
            return None
        rest = {name: value for name, value in part.schema.items() if name != key}
        return part.around | self._names.of(rest, part.base).all()

    # Keywords with schemas of what a value holds.

    def _inner(self, part: SchemaPart, key: str, value: Any) -> None:
        place = part.at(key)
        if key in ("properties", "patternProperties"):
            if not isinstance(value, Mapping):
                self.pass_over(place, "it is an object of schemas")
                return
            made = part.made.setdefault(key, {})
            for name, inner in value.items():
                made[name] = self._schema(inner, joined(place, name), part.base, frozenset())
        elif key == "additionalProperties":
            closed = part.names is not None  # for want of other ways to write control characters
            made = False if closed else self._schema(value, place, part.base, frozenset())
            part.made.setdefault(key, made)
        elif isinstance(value, list):  # "prefixItems", or "items" as of 2019
            part.made["prefixItems"] = [
                self._schema(inner, f"{place}[{number}]", part.base, frozenset())
                for number, inner in enumerate(value)
            ]
            if key == "items" and "additionalItems" in part.schema:
                rest = part.schema["additionalItems"]
                at = part.at("additionalItems")
                part.made["items"] = self._schema(rest, at, part.base, frozenset())
        elif key == "prefixItems":
            self.pass_over(place, "it is a list of schemas")
        else:
            part.made[key] = self._schema(value, place, part.base, frozenset())

    def _property_names(self, part: SchemaPart, value: Any) -> None:
        """Hold to `propertyNames` where it says nothing, or where names are all that is said."""
        said = (
            {key: inner for key, inner in value.items() if key in _SAID}
            if isinstance(value, Mapping)
            else {"": value}
        )
        if said.get("type") == "string":
            del said["type"]
        if value is True or not said:
            return
        alone = not part.schema.keys() & {"properties", "patternProperties", *_APPLIED}
        if alone and len(said) == 1:
            rest = part.schema.get("additionalProperties", True)
            place = part.at("additionalProperties")
            made = self._schema(rest, place, part.base, frozenset())
            ((key, names),) = said.items()
            if key == "const":
                key, names = "enum", [names]
            if key == "enum" and isinstance(names, list):
                part.made["properties"] = {n: made for n in names if isinstance(n, str)}
                part.made["additionalProperties"] = False
                return
            pattern = formats.pattern(names) if key == "format" else names
            if key in ("pattern", "format") and isinstance(pattern, str):
                part.made["patternProperties"] = {pattern: made}
                part.made["additionalProperties"] = False
                return
        self.pass_over(part.at("propertyNames"), "no grammar does")

    def _asks_nothing(self, part: SchemaPart, key: str, value: Any) -> bool:
        """Return whether a keyword that no grammar holds to lets everything through, or has been
        held to in another way."""
        schema = part.schema
        if key == "uniqueItems":
            return value is False or (numbers.whole(schema.get("maxItems")) or 2) < 2
        if key in ("dependentSchemas", "dependentRequired", "dependencies"):
            return value == {}
        if key == "if":
            return not schema.keys() & {"then", "else"}
        if key == "not":
            return value is False
        if key == "contains":
            return numbers.whole(schema.get("minContains", 1)) == 0 and "maxContains" not in schema
        applied = schema.keys() & {*_APPLIED, "if", "dependentSchemas", "$dynamicRef"}
        if key == "unevaluatedProperties":
            if value is False and part.names is not None:
                found = self._names.of(schema, part.base)
                forked = len(schema.keys() & {"anyOf", "oneOf", "if", "dependentSchemas"}) > 1
                return found.required <= found.declared and not (found.forks or forked)
            if value is False and not applied:
                part.made.setdefault("additionalProperties", False)
                return True
            return value is True
        if key == "unevaluatedItems":
            if value is False and not applied and "contains" not in schema:
                part.made.setdefault("items", False)
                return True
            return value is True
        return False


def _is_within(place: str, outer: str) -> bool:
    return not outer or place.startswith((outer, f"{outer}.") if outer[-1] == "[" else f"{outer}.")
