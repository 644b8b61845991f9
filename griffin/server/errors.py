"""What a refused request gets: one JSON object, a status, and whether it is worth asking again.

The official client turns the status into a class of exception and retries 408, 409, 429 and 5xx
unless `x-should-retry: false` says that the same request would fail the same way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from griffin.text.vocabulary import TextTooLong


class Case(NamedTuple):
    """A kind of failure. retry: False sends `x-should-retry: false`; None says nothing."""

    status: int
    type: str
    code: str | None
    retry: bool | None


INVALID = Case(400, "invalid_request_error", "invalid_value", False)
UNSUPPORTED = Case(400, "invalid_request_error", "unsupported_parameter", False)
TOO_LONG = Case(400, "invalid_request_error", "context_length_exceeded", False)
BAD_KEY = Case(401, "authentication_error", "invalid_api_key", False)
FORBIDDEN = Case(403, "permission_error", "forbidden", False)
NO_ROUTE = Case(404, "invalid_request_error", "not_found", False)
NO_MODEL = Case(404, "invalid_request_error", "model_not_found", False)
NO_STATE = Case(404, "invalid_request_error", "state_not_found", False)
NO_TURN = Case(404, "invalid_request_error", "turn_not_found", False)
NO_ITEM = Case(404, "invalid_request_error", "item_not_found", False)
BAD_METHOD = Case(405, "invalid_request_error", "method_not_allowed", False)
SLOW_BODY = Case(408, "timeout", "body_timeout", None)
MISMATCH = Case(409, "invalid_request_error", "state_mismatch", False)
TORN = Case(409, "invalid_request_error", "state_torn", False)
TAKEN = Case(409, "invalid_request_error", "session_exists", False)
BUSY = Case(409, "conflict", "session_busy", None)
TOO_LARGE = Case(413, "invalid_request_error", "request_too_large", False)
BAD_MEDIA = Case(415, "invalid_request_error", "unsupported_media_type", False)
IMPOSSIBLE = Case(422, "invalid_request_error", "unprocessable", False)
QUEUE_FULL = Case(429, "rate_limit_error", "queue_full", None)
TOO_MANY = Case(429, "rate_limit_error", "too_many_requests", None)
BUG = Case(500, "server_error", None, None)
NOT_READY = Case(503, "server_error", "not_ready", None)
TIMEOUT = Case(504, "timeout", "timeout", None)
STORAGE_FULL = Case(507, "server_error", "storage_full", False)

CASES: tuple[Case, ...] = (
    *(INVALID, UNSUPPORTED, TOO_LONG, BAD_KEY, FORBIDDEN, NO_ROUTE, NO_MODEL, NO_STATE, NO_TURN),
    *(NO_ITEM, BAD_METHOD, SLOW_BODY, MISMATCH, TORN, TAKEN, BUSY, TOO_LARGE, BAD_MEDIA),
    *(IMPOSSIBLE, QUEUE_FULL, TOO_MANY, BUG, NOT_READY, TIMEOUT, STORAGE_FULL),
)
# Words of the engine and the sessions for what has another name in front of clients.
_OTHER_WORDS = {
    "bad_request": INVALID,
    "too_many_choices": INVALID,
    "invalid_name": INVALID,
    "session_error": INVALID,
    "prompt_too_long": TOO_LONG,
    "no_room": QUEUE_FULL,
    "closed": NOT_READY,
}
_BY_CODE = {case.code: case for case in CASES if case.code is not None} | _OTHER_WORDS
_PATH = re.compile(r"[a-z_]+\[\d+\](?:\.[a-z_]+|\[\d+\])*")


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong. `param` is the path of the field to blame, such as messages[2].content."""

    message: str
    type: str
    param: str | None
    code: str | None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A form in which a refusal is written."""

    @classmethod
    def of(cls, error: ApiError, request_id: str) -> Failure:
        """Write a refusal down. request_id: for forms that tell it in the body."""
        raise NotImplementedError


class ErrorBody(Failure, frozen=True, kw_only=True):
    """The body of every answer that is not a 2xx, in OpenAI's form."""

    error: ErrorDetail

    @classmethod
    def of(cls, error: ApiError, request_id: str) -> ErrorBody:
        detail = ErrorDetail(
            message=error.message, type=error.case.type, param=error.param, code=error.code
        )
        return cls(error=detail)


class ApiError(Exception):
    """A refusal, ready to be sent. The room's only exception.

    case:        one of this file's.
    message:     what was given, what is allowed, what to do.
    param:       the field's path.
    retry_after: seconds, for 429 and 503.
    retry:       overrules the case's, for a failure known to repeat.
    headers:     further response headers.
    """

    def __init__(
        self,
        case: Case,
        message: str,
        param: str | None = None,
        *,
        retry_after: float | None = None,
        retry: bool | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.case = case
        # A lone surrogate cannot come through a JSON body, but it can through the name of a file.
        self.message = message.encode("utf-8", "replace").decode("utf-8")
        self.param = param
        self.retry_after = retry_after
        self.retry = case.retry if retry is None else retry
        self._headers = dict(headers or {})

    @property
    def status(self) -> int:
        return self.case.status

    @property
    def code(self) -> str | None:
        return self.case.code

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that go with it, in lower case."""
        headers = {"content-type": "application/json"}
        if self.retry is not None:
            headers["x-should-retry"] = "true" if self.retry else "false"
        if self.retry_after is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after)))
            headers["retry-after-ms"] = str(max(1, math.ceil(self.retry_after * 1000)))
        if self.case is BAD_KEY:
            headers["www-authenticate"] = "Bearer"
        return headers | self._headers

    def object(self) -> ErrorBody:
        """Return the body as a value; streams and stored responses carry it too."""
        return ErrorBody.of(self, "")

    def body(self) -> bytes:
        """Return the JSON body."""
        return msgspec.json.encode(self.object())


def of_code(
    code: str, message: str, param: str | None = None, retry_after: float | None = None
) -> ApiError:
    """Make the refusal for another room's machine-readable code ("session_busy", "queue_full",
    ...).

    Raises KeyError for a code that no case has: the table must then learn it.
    """
    return ApiError(_BY_CODE[code], message, param, retry_after=retry_after)


def of_value_error(error: ValueError, param: str | None = None) -> ApiError:
    """Make a 400 of another room's ValueError, whose text is written for users.

    A text that begins with a path, as `griffin.text.Chat` does ("messages[3] has role ..."), gives
    its own param.
    """
    text = str(error)
    if isinstance(error, TextTooLong):
        return ApiError(TOO_LONG, f"{text} (raise it with --max-prompt-tokens)", param)
    found = _PATH.match(text)
    return ApiError(INVALID, text, found.group() if found else param)


def bug(request_id: str) -> ApiError:
    """Make the answer to an unexpected exception; it says only where to look for it."""
    return ApiError(BUG, f"the server failed on this request; its log has more under {request_id}")
