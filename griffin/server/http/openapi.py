"""The server's OpenAPI 3.1 document, made of the Structs of bodies and answers."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import msgspec

from griffin.server import errors
from griffin.server.endpoints import FAILURES, OPERATIONS, failure_of
from griffin.server.errors import ErrorBody
from griffin.server.limits import Limits
from griffin.server.protocol.bounds import NAME_PATTERN
from griffin.server.protocol.operation import Operation
from griffin.server.protocol.page import MAX_PAGE
from griffin.server.protocol.policy import Policy

_REF = "#/components/schemas/{name}"
_COMMON = (errors.BAD_KEY, errors.FORBIDDEN, errors.TOO_MANY, errors.BUG, errors.NOT_READY)

_OCTETS = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
# What a JSON schema calls the most of a kind.
_MOST = {"integer": "maximum", "array": "maxItems", "object": "maxProperties"}


def openapi(
    limits: Limits | None = None, version: str = "1", root_path: str = ""
) -> dict[str, Any]:
    """Return the document as plain values.

    limits: the server's own, written into the schemas. root_path: what stands before the paths.
    """
    limits = limits or Limits()
    kinds = {
        kind for op in OPERATIONS for kind in (op.body, op.reply, op.chunk) if kind is not None
    }
    ordered = sorted(kinds | {ErrorBody, *FAILURES.values()}, key=lambda kind: kind.__name__)
    schemas = msgspec.json.schema_components(ordered, ref_template=_REF)[1]
    for operation in OPERATIONS:
        for field, name in operation.bounds.items():
            assert operation.body is not None
            known = schemas[operation.body.__name__]["properties"]
            _limit(known[field], getattr(limits, name))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "griffin",
            "version": version,
            "description": (
                "OpenAI's interface in front of a Griffin model, Anthropic's and Ollama's, and"
                " sessions that stay. Fields that this server does not know are passed over and"
                " named in the header x-griffin-ignored."
            ),
        },
        "servers": [{"url": root_path or "/"}],
        "security": [{"key": []}, {"bare": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "bare": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _limit(schema: dict[str, Any], most: int) -> None:
    """Write a limit into the member of a union that it is about: not a string, nor null."""
    for member in schema.get("anyOf", [schema]):
        word = _MOST.get(member.get("type"))
        if word is not None:
            member[word] = min(most, member.get(word, most))


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _id(operation),
        "summary": operation.summary,
        "responses": _responses(operation),
    }
    if operation.policy is not None:
        described["description"] = _description(operation.policy)
    if parameters := _parameters(operation):
        described["parameters"] = parameters
    if operation.octets == "body":
        described["requestBody"] = {"required": True, "content": _OCTETS}
    if operation.body is not None:
        described["requestBody"] = {
            "required": not operation.empty,
            "content": {"application/json": {"schema": _ref(operation.body)}},
        }
    if operation.public:
        described["security"] = []
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    if operation.octets == "reply":
        content: dict[str, Any] = _OCTETS
    elif operation.reply is None:
        content = {"text/plain": {"schema": {"type": "string"}}}
    else:
        content = {"application/json": {"schema": _ref(operation.reply)}}
    if operation.streams:
        content["text/event-stream"] = {"schema": _event(operation.chunk)}
    if operation.lines and operation.reply is not None:
        content["application/x-ndjson"] = {"schema": _ref(operation.reply)}
    responses: dict[str, Any] = {"200": {"description": "Done.", "content": content}}
    common = (errors.BUG, errors.NOT_READY) if operation.public else _COMMON
    if operation.path == "/ready":
        responses["503"] = {"description": "Loading or draining.", "content": content}
        common = (errors.BUG,)
    by_status: dict[int, list[str]] = {}
    for case in dict.fromkeys((*operation.cases, *common)):
        by_status.setdefault(case.status, []).append(case.code or "a bug")
    for status in sorted(by_status):
        responses[str(status)] = {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(by_status[status])}.",
            "content": {"application/json": {"schema": _ref(failure_of(operation.path))}},
        }
    return responses


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    for name in re.findall(r"{(\w+)}", operation.path):
        schema = (
            {"type": "string", "pattern": NAME_PATTERN} if name == "name" else {"type": "string"}
        )
        parameters.append({"name": name, "in": "path", "required": True, "schema": schema})
    queries = dict(operation.queries)
    if operation.paged:
        queries |= {
            "limit": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 20},
            "after": {"type": "string", "minLength": 1, "maxLength": 128},
            "order": {"enum": ["asc", "desc"], "default": "desc"},
        }
    for name, schema in queries.items():
        parameters.append({"name": name, "in": "query", "schema": schema})
    return parameters


def _description(fields: Policy) -> str:
    refused = "; ".join(
        f"`{place}` ({refusal.why})" for place, refusal in sorted(fields.refused.items())
    )
    ignored = ", ".join(f"`{place}`" for place in sorted(fields.ignored))
    return f"Accepted without effect: {ignored}. Refused unless they ask for nothing: {refused}."


def _id(operation: Operation) -> str:
    words = re.findall(r"\w+", operation.path.removeprefix("/v1"))
    return "_".join([operation.method.lower(), *words]).replace("-", "_")


def _event(chunk: Any) -> dict[str, Any]:
    """Return the schema of one event of a stream; OpenAPI 3.1 has no word for all of them."""
    said = [{"type": "object"}] if chunk is None else [_ref(chunk), _ref(ErrorBody)]
    data = {"contentMediaType": "application/json", "contentSchema": {"anyOf": said}}
    return {
        "type": "object",
        "properties": {
            "event": {"type": "string"},
            "data": {"anyOf": [{"const": "[DONE]"}, {"type": "string", **data}]},
        },
        "required": ["data"],
    }


def _ref(kind: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}
