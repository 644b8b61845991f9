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
    """`response_format` of /v1/chat/completions."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaBody | None = None


class TextFormatBody(SchemaBody, kw_only=True):
    """`text.format` of /v1/responses: the same without the wrapping."""

    type: Literal["text", "json_object", "json_schema"]


class TextBody(msgspec.Struct, kw_only=True):
    """`text` of /v1/responses."""

    format: TextFormatBody | None = None


@dataclass(frozen=True)
class JsonFormat:
    """An answer that must be JSON: an object of any kind, or what `schema` allows."""

    schema: dict[str, Any] | None = None
    name: str | None = None
    strict: bool = False


def read_format(
    body: FormatBody | TextFormatBody | None, limits: Limits, param: str
) -> JsonFormat | None:
    """Return the form, None for free text. ApiError with the path of what is wrong."""
    if body is None or body.type == "text":
        return None
    if body.type == "json_object":
        return JsonFormat()
    if isinstance(body, TextFormatBody):
        described, where = body, param
    else:
        described, where = body.json_schema, f"{param}.json_schema"
        if described is None:
            raise ApiError(INVALID, f"{where} is missing", where)
    if described.schema is None:
        raise ApiError(INVALID, f"{where}.schema is missing", f"{where}.schema")
    check_schema(described.schema, limits, f"{where}.schema")
    return JsonFormat(described.schema, described.name, bool(described.strict))


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
