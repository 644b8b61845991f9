"""What a request asks for, and of whom: the forms of its target, and headers that may come once."""

from __future__ import annotations

import re
from collections import Counter
from urllib.parse import unquote_to_bytes

from griffin.server.errors import INVALID, ApiError
from griffin.server.http.asgi import Scope

# Of two of these one would be looked at, and the other by whoever stands before this server.
_ONCE = (
    *("authorization", "content-encoding", "content-type", "host", "origin"),
    *("x-api-key", "api-key", "x-griffin-session"),
)
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)([^?#]*)")


def check_once(scope: Scope) -> None:
    """Raise ApiError (400) for a header that came twice and must not."""
    counts = Counter(name for name, _ in scope["headers"])
    for name in _ONCE:
        if counts[name.encode()] > 1:
            raise ApiError(INVALID, f"the header {name} came {counts[name.encode()]} times; once")


def take_target(scope: Scope) -> str | None:
    """Bring a target of absolute form, as proxies send it, into the usual one: a path.

    Returns the host it names, which counts instead of the Host header (RFC 9112, 3.2.2); None for
    the usual form.
    """
    raw = scope.get("raw_path") or scope["path"].encode()
    found = _ABSOLUTE.fullmatch(raw)
    if found is None:
        return None
    host, path = found.groups()
    scope["raw_path"] = path or b"/"
    scope["path"] = unquote_to_bytes(scope["raw_path"]).decode(errors="replace")
    return host.decode("latin-1")
