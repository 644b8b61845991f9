"""Refusals: the table of cases, other rooms' words, headers; the limits; the lines of a stream."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import get_args

import pytest

from griffin.engine.request import Code
from griffin.server import errors, sse
from griffin.server.errors import ApiError
from griffin.server.limits import Limits
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


def test_limits_are_checked_and_name_their_flags():
    assert Limits.flag("max_prompt_tokens") == "--max-prompt-tokens"
    for wrong in (0, -1, 1.5, True, "5", 2**63):
        with pytest.raises(ValueError, match="max_stop must be a whole number"):
            Limits(max_stop=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="default_max_tokens=1024 is more than max_tokens=10"):
        Limits(max_tokens=10)


def test_lines_of_a_stream():
    assert sse.data({"a": "x\ny\r\u2028"}) == 'data: {"a":"x\\ny\\r\u2028"}\n\n'.encode()
    assert sse.data({}, event="response.created") == b"event: response.created\ndata: {}\n\n"
    assert sse.comment("half\n\ndata: forged") == b": half data: forged\n\n"
    assert sse.KEEPALIVE.startswith(b":") and sse.DONE == b"data: [DONE]\n\n"
    assert json.loads(sse.error(errors.bug("r"))[6:])["error"]["type"] == "server_error"


def test_the_protocol_brings_no_torch():
    code = (
        "import sys, griffin.server.protocol, griffin.server.openapi; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
