"""The lines of a stream, as the official client reads them."""

from __future__ import annotations

import json

from griffin.server import errors
from griffin.server.http import sse


def test_lines_of_a_stream():
    assert sse.data({"a": "x\ny\r\u2028"}) == 'data: {"a":"x\\ny\\r\u2028"}\n\n'.encode()
    assert sse.data({}, event="response.created") == b"event: response.created\ndata: {}\n\n"
    assert sse.comment("half\n\ndata: forged") == b": half data: forged\n\n"
    assert sse.KEEPALIVE.startswith(b":") and sse.DONE == b"data: [DONE]\n\n"
    assert json.loads(sse.error(errors.bug("r"))[6:])["error"]["type"] == "server_error"
