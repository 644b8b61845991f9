"""What a line of a batch asks for: OpenAI's batch lines, or a prompt alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PATHS = (CHAT, TEXT, "/v1/responses")
MOST = 8 << 20  # bytes of a line


@dataclass(frozen=True)
class BatchLine:
    """A request. number: of its line, counted from 1. path, body: as a client would send it."""

    number: int
    custom_id: str
    path: str
    body: dict[str, Any]


def parse_line(raw: bytes, number: int) -> BatchLine:
    """Read a line of a batch.

    It is OpenAI's {"custom_id", "method", "url", "body"}, or a prompt: a JSON string, or an object
    with `prompt` or `messages` and the fields that /v1/completions or /v1/chat/completions take. A
    prompt's custom_id is its own, else "line-N". A request without a seed gets one from its
    custom_id, so that asking again gives the same. Raises ValueError for anything else.
    """
    if len(raw) > MOST:
        raise ValueError(f"the line has {len(raw):,} bytes; a line has at most {MOST:,}")
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the line is not JSON: {error}") from None
    if isinstance(found, str):
        found = {"prompt": found}
    if not isinstance(found, dict):
        raise ValueError("a line is an object, or a prompt as a JSON string")
    custom_id = found.get("custom_id", f"line-{number}")
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= 512:
        raise ValueError("custom_id must be a text of 1 to 512 characters")
    if "body" in found or "url" in found:
        path, body = _of_openai(found)
    elif ("messages" in found) != ("prompt" in found):
        path = CHAT if "messages" in found else TEXT
        body = {name: value for name, value in found.items() if name != "custom_id"}
    else:
        raise ValueError("a line has a body with its url, or a prompt, or messages")
    if body.get("stream"):
        raise ValueError("stream makes no sense in a batch; leave it out")
    if body.get("seed") is None:
        body = body | {"seed": seed_of(custom_id)}
    return BatchLine(number, custom_id, path, body)


def seed_of(custom_id: str) -> int:
    """Return the seed of a request that names none, 0 to 2^63 - 1."""
    digest = hashlib.blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def result_line(line: BatchLine, status: int, body: dict[str, Any]) -> dict[str, Any]:
    """Return OpenAI's batch result of an answered line; `error` is null where it was answered."""
    id = f"batch_req_{seed_of(line.custom_id):016x}"
    response = {"status_code": status, "request_id": id, "body": body}
    error = None if status == 200 else body.get("error")
    return {"id": id, "custom_id": line.custom_id, "response": response, "error": error}


def _of_openai(found: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    method, path, body = (found.get(name) for name in ("method", "url", "body"))
    if "custom_id" not in found:
        raise ValueError("the line lacks custom_id")
    if method not in ("POST", None):
        raise ValueError(f"method is {method!r}; a batch has POST alone")
    if path not in PATHS:
        raise ValueError(f"url is {path!r}; a batch has {', '.join(PATHS)}")
    if not isinstance(body, dict):
        raise ValueError("body must be an object")
    return str(path), body
