"""The form of an answer as other servers' clients ask for it: patterns, choices, rules, JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from griffin.server.errors import INVALID, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.bounds import check_most
from griffin.server.protocol.formats import (
    FormatBody,
    JsonFormat,
    TextFormatBody,
    check_schema,
    read_format,
)


class StructuredBody(msgspec.Struct, kw_only=True):
    """vLLM's `structured_outputs`: one of these."""

    json: dict[str, Any] | str | None = None
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


class StructuredFields(msgspec.Struct, kw_only=True):
    """What says so in a body: `structured_outputs`, vLLM's older names, and llama.cpp's.

    grammar: rules in GBNF or llguidance's Lark; "" is none, as llama.cpp has it.
    """

    structured_outputs: StructuredBody | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    grammar: str | None = None


class TextFormat(NamedTuple):
    """An answer that must be a text of some kind.

    kind:  "regex": what a pattern matches as a whole. "choice": one of some texts. "grammar": what
           rules derive.
    texts: the pattern, the texts to choose from, or the rules.
    place: where it stands in the request.
    """

    kind: Literal["regex", "choice", "grammar"]
    texts: tuple[str, ...]
    place: str


AnswerFormat = JsonFormat | TextFormat
OTHERS = tuple(StructuredFields.__struct_fields__)  # what their places begin with


def read_form(
    body: StructuredFields, own: FormatBody | TextFormatBody | None, limits: Limits, param: str
) -> tuple[AnswerFormat | None, tuple[str, ...]]:
    """Return the form that an answer must have, None for free text, and what says nothing.

    own: the endpoint's own field, called `param`. ApiError for two forms, and for what is none.
    """
    form, beside = read_format(own, limits, param)
    given = [param] if form is not None else []
    for place, kind, value in _asked(body):
        given.append(place)
        if len(given) > 1:
            both = " and ".join(given)
            raise ApiError(INVALID, f"{both} both say what an answer must be; send one", place)
        form = _json(value, limits, place) if kind == "json" else _text(kind, value, limits, place)
    return form, beside


def _asked(body: StructuredFields) -> Iterator[tuple[str, Any, Any]]:
    """Go through what asks for something: where it stands, its kind, its value."""
    inner = body.structured_outputs or StructuredBody()
    yield from (
        (place, kind, value)
        for place, kind, value in (
            ("structured_outputs.json", "json", inner.json),
            ("structured_outputs.json_object", "json", inner.json_object),
            ("structured_outputs.regex", "regex", inner.regex),
            ("structured_outputs.choice", "choice", inner.choice),
            ("structured_outputs.grammar", "grammar", inner.grammar),
            ("guided_json", "json", body.guided_json),
            ("guided_regex", "regex", body.guided_regex),
            ("guided_choice", "choice", body.guided_choice),
            ("guided_grammar", "grammar", body.guided_grammar),
            ("json_schema", "json", body.json_schema),
            ("grammar", "grammar", body.grammar or None),
        )
        if value is not None and value is not False
    )


def _json(value: Any, limits: Limits, place: str) -> JsonFormat:
    if value is True:
        return JsonFormat(place=place)
    if isinstance(value, str):
        size = len(value.encode())
        check_most(size, f"{place} has {size} bytes", limits, "max_schema_bytes", place)
        try:
            value = msgspec.json.decode(value)  # refuses what no JSON body may hold, either
        except (ValueError, RecursionError):
            raise ApiError(INVALID, f"{place} is a string that is not JSON", place) from None
        if not isinstance(value, dict):
            raise ApiError(INVALID, f"{place} holds no JSON schema; it must be an object", place)
    check_schema(value, limits, place)
    return JsonFormat(value, place=place)


def _text(kind: Any, value: str | list[str], limits: Limits, place: str) -> TextFormat:
    texts = (value,) if isinstance(value, str) else tuple(value)
    if not texts:
        raise ApiError(INVALID, f"{place} is empty; name what to choose from", place)
    for at, text in enumerate(texts):
        if not text:
            where = place if isinstance(value, str) else f"{place}[{at}]"
            raise ApiError(INVALID, f"{where} is an empty string", where)
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    check_most(size, f"{place} has {size} bytes", limits, "max_schema_bytes", place)
    return TextFormat(kind, texts, place)
