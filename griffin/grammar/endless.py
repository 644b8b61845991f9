"""Definitions that lead to themselves without an end: nothing that is written fits them."""

from __future__ import annotations

from typing import Any


def close_endless(definitions: dict[str, Any]) -> None:
    """Replace definitions that no finite value fits by one that says so."""
    ended: set[str] = set()
    while True:
        more = {
            name for name, made in definitions.items() if name not in ended and _ends(made, ended)
        }
        if not more:
            break
        ended |= more
    for name in definitions.keys() - ended:
        definitions[name] = {"enum": []}


def _ends(made: Any, ended: set[str]) -> bool:
    """Return whether some finite value may fit, if the definitions in `ended` have one."""
    if not isinstance(made, dict):
        return True
    if "$ref" in made and made["$ref"].removeprefix("#/$defs/") not in ended:
        return False
    if not all(_ends(part, ended) for part in made.get("allOf", ())):
        return False
    if made.get("anyOf") and not any(_ends(part, ended) for part in made["anyOf"]):
        return False
    kinds = made.get("type", ["null"])
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    if kinds - {"object", "array"}:
        return True
    return ("object" in kinds and _object_ends(made, ended)) or (
        "array" in kinds and _array_ends(made, ended)
    )


def _object_ends(made: dict[str, Any], ended: set[str]) -> bool:
    properties, rest = made.get("properties", {}), made.get("additionalProperties", True)
    return all(_ends(properties.get(name, rest), ended) for name in made.get("required", ()))


def _array_ends(made: dict[str, Any], ended: set[str]) -> bool:
    least, first = made.get("minItems", 0), made.get("prefixItems", [])
    needed = [*first[:least], *([made.get("items", True)] if least > len(first) else [])]
    return all(_ends(part, ended) for part in needed)
