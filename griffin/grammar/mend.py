"""What is left in a schema that llguidance does not take, found by asking it part by part."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from griffin.grammar.schema import HeldSchema

Check = Callable[[dict[str, Any]], str]

_SECONDS = 1.0
# What a part says by itself, and how it puts others together; each in the order in which to do
# without it.
_OWN = (
    *("pattern", "multipleOf", "minLength", "maxLength", "minItems", "maxItems"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum", "type"),
)
_TOGETHER = (
    *("minProperties", "maxProperties", "patternProperties", "allOf", "anyOf", "$ref"),
    *("items", "prefixItems", "additionalProperties", "required", "properties"),
)


class _Node(NamedTuple):
    made: dict[str, Any]
    place: str


def mend(held: HeldSchema, check: Check) -> None:
    """Take out of what is held to what cannot be.

    check: returns what is wrong with a schema that stands alone, "" for nothing.
    Raises ValueError for a schema that nothing fits, and for one that is too much; for any, if all
    must be held to.
    """
    wrong = check(held.whole())
    if not wrong:
        return
    until = time.monotonic() + _SECONDS
    nodes = [*_nodes(held, held.schema, "")]
    for definition in list(held.definitions.values()):
        nodes += _nodes(held, definition, "")
    for node in nodes:
        _patterns(held, node, check)
        _mend(held, node, _OWN, check, until)
    for node in nodes:
        _mend(held, node, _TOGETHER, check, until)
    if wrong := check(held.whole()):
        nothing = "it allows no text at all: " if is_contradiction(wrong) else ""
        raise ValueError(nothing + wrong)


def _nodes(held: HeldSchema, made: Any, place: str) -> Iterator[_Node]:
    """Go through the parts of a schema, what a part holds before it."""
    if not isinstance(made, dict):
        return
    place = held.places.get(id(made), place)
    for key in ("properties", "patternProperties"):
        for inner in made.get(key, {}).values():
            yield from _nodes(held, inner, place)
    for key in ("allOf", "anyOf", "prefixItems"):
        for inner in made.get(key, ()):
            yield from _nodes(held, inner, place)
    for key in ("items", "additionalProperties"):
        yield from _nodes(held, made.get(key), place)
    yield _Node(made, place)


def _patterns(held: HeldSchema, node: _Node, check: Check) -> None:
    for name in list(node.made.get("patternProperties", {})):
        if wrong := check({"patternProperties": {name: {}}}):
            held.pass_over(_at(node, f"patternProperties.{name}"), wrong)
            del node.made["patternProperties"][name]


def _mend(
    held: HeldSchema, node: _Node, words: tuple[str, ...], check: Check, until: float
) -> None:
    """Take keywords out of a part until the rest of it, among these words, will do."""
    while True:
        if words is _OWN:
            said = {key: node.made[key] for key in words if key in node.made}
        else:
            said = {**node.made, "$defs": held.definitions}
        wrong = check(said)
        if not wrong or is_contradiction(wrong):
            return
        if time.monotonic() > until:
            raise ValueError(wrong)
        left = [key for key in words if key in said]
        if not left:
            return
        spare = next((key for key in left if not check(_without(said, key))), left[0])
        held.pass_over(_at(node, held.said.get((id(node.made), spare), spare)), wrong)
        del node.made[spare]


def is_contradiction(wrong: str) -> bool:
    """Return whether a message says that nothing fits a schema, rather than that it is not held
    to."""
    return "nsatisfiable" in wrong


def _without(said: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in said.items() if name != key}


def _at(node: _Node, key: str) -> str:
    return f"{node.place}.{key}" if node.place else key
