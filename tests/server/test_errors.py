"""Refusals: the table of cases, other rooms' words, headers."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from griffin.engine.request import Code
from griffin.server import errors
from griffin.server.errors import ApiError
from griffin.server.http import sse
from griffin.sessions import errors as session_errors


@pytest.mark.parametrize(
    ("case", "row"),
    [
        (errors.INVALID, (400, "invalid_request_error", "invalid_value")),
        (errors.UNSUPPORTED, (400, "invalid_request_error", "unsupported_parameter")),
        (errors.TOO_LARGE, (413, "invalid_request_error", "request_too_large")),
        (errors.BAD_KEY, (401, "authentication_error", "invalid_api_key")),
        (errors.NO_MODEL, (404, "invalid_request_error", "model_not_found")),
        (errors.NO_STATE, (404, "invalid_request_error", "state_not_found")),
        (errors.MISMATCH, (409, "invalid_request_error", "state_mismatch")),
        (errors.BUSY, (409, "conflict", "session_busy")),
        (errors.QUEUE_FULL, (429, "rate_limit_error", "queue_full")),
        (errors.NOT_READY, (503, "server_error", "not_ready")),
        (errors.TIMEOUT, (504, "timeout", "timeout")),
        (errors.BUG, (500, "server_error", None)),
    ],
)
def test_the_table(case, row):
    error = ApiError(case, "why", "where")
    assert (error.status, error.case.type, error.code) == row
    assert json.loads(error.body()) == {
        "error": {"message": "why", "type": row[1], "param": "where", "code": row[2]}
    }
    assert error.headers["content-type"] == "application/json"
    assert case in errors.CASES and len(set(errors.CASES)) == len(errors.CASES)


def test_headers():
    full = ApiError(errors.QUEUE_FULL, "later", retry_after=1.2).headers
    assert (full["retry-after"], full["retry-after-ms"]) == (
        "2",
        "1200",
    ) and "x-should-retry" not in full
    assert ApiError(errors.BAD_KEY, "no").headers["www-authenticate"] == "Bearer"
    assert ApiError(errors.MISMATCH, "no").headers["x-should-retry"] == "false"
    late = ApiError(
        errors.TIMEOUT, "it ran its whole time", retry=False, headers={"x-a": "b"}
    ).headers
    assert (late["x-should-retry"], late["x-a"]) == ("false", "b")


def test_a_message_that_is_no_unicode_is_still_sent():
    error = ApiError(errors.INVALID, "file \udcff")
    assert json.loads(error.body())["error"]["message"] == "file ?" and sse.error(error)


def test_every_word_of_the_engine_and_the_sessions_has_a_case():
    for code in get_args(Code):
        assert 400 <= errors.of_code(code, "why").status < 600
    for kind in vars(session_errors).values():
        if isinstance(kind, type) and issubclass(kind, session_errors.SessionError):
            error = errors.of_code(kind.code, "why")
            assert error.status == kind.status, kind
    with pytest.raises(KeyError):
        errors.of_code("unheard_of", "why")


def test_other_rooms_errors_keep_their_place():
    error = errors.of_value_error(
        ValueError("messages[3] has role 'owl'; allowed are ..."), "messages"
    )
    assert error.param == "messages[3]"
    assert (
        errors.of_value_error(ValueError("a conversation needs a user message"), "messages").param
        == "messages"
    )
    assert "req_7" in errors.bug("req_7").message and errors.bug("req_7").code is None
