"""The form that an answer must have: free text, any JSON object, or JSON by a schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from griffin.server.errors import INVALID, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.bounds import check_most

FormatName = Annotated[str, Meta(min_length=1, max_length=64)]


class SchemaBody(msgspec.Struct, kw_only=True):
    """`response_format.json_schema`."""

    name: FormatName | None = None
    description: Annotated[str, Meta(max_length=16_384)] | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class FormatBody(msgspec.Struct, kw_only=True):
    """`response_format` of /v1/chat/completions.

    A schema is in `json_schema`, or as llama.cpp has it in `schema`, or as TGI has it in `value`.
    """

    type: Literal["text", "json_object", "json_schema", "json"]
    json_schema: SchemaBody | None = None
    schema: dict[str, Any] | None = None
    value: dict[str, Any] | None = None
    strict: bool | None = None


class TextFormatBody(SchemaBody, kw_only=True):
    """`text.format` of /v1/responses: the same without the wrapping."""

    type: Literal["text", "json_object", "json_schema"]


class TextBody(msgspec.Struct, kw_only=True):
    """`text` of /v1/responses."""

    format: TextFormatBody | None = None


@dataclass(frozen=True)
class JsonFormat:
    """An answer that must be JSON: an object of any kind, or what `schema` allows.

    strict: all of the schema must be held to; otherwise what cannot be is passed over and named.
    place:  where the schema stands in the request.
    """

    schema: dict[str, Any] | None = None
    name: str | None = None
    strict: bool = False
    place: str = ""


def read_format(
    body: FormatBody | TextFormatBody | None, limits: Limits, param: str
) -> tuple[JsonFormat | None, tuple[str, ...]]:
    """Return the form, None for free text, and the fields that say nothing beside it.

    ApiError with the path of what is wrong.
    """
    if body is None:
        return None, ()
    given = {
        f"{param}.{name}": schema
        for name in ("schema", "value")
        if (schema := getattr(body, name, None)) is not None
    }
    described = getattr(body, "json_schema", None)
    if described is not None and described.schema is not None:
        given = {f"{param}.json_schema.schema": described.schema} | given
    if body.type == "text":
        return None, tuple(given)
    if not given:
        if body.type != "json_schema":
            return JsonFormat(), ()
        if isinstance(body, FormatBody) and described is None:
            raise ApiError(INVALID, f"{param}.json_schema is missing", f"{param}.json_schema")
        where = f"{param}.schema" if described is None else f"{param}.json_schema.schema"
        raise ApiError(INVALID, f"{where} is missing", where)
    place, *others = given
    check_schema(given[place], limits, place)
    said = described if place.endswith("json_schema.schema") and described is not None else body
    strict = bool(said.strict or body.strict)
    name = getattr(said, "name", None)
    return JsonFormat(given[place], name, strict, place), tuple(others)


def check_schema(schema: dict[str, Any], limits: Limits, param: str) -> None:
    """Raise ApiError if a JSON schema is too long or too deep; its sense is the grammar's
    matter."""
    size = len(msgspec.json.encode(schema))
    check_most(size, f"{param} has {size} bytes", limits, "max_schema_bytes", param)
    depth, level = 0, [schema]
    while level:
        depth += 1
        inner: list[Any] = []
        for value in level:
            inner += value.values() if isinstance(value, dict) else value
        level = [value for value in inner if isinstance(value, (dict, list)) and value]
    check_most(depth, f"{param} is {depth} levels deep", limits, "max_schema_depth", param)
