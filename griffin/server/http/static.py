"""The chat page, from memory: files known by name; no path of a request is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from griffin.server.errors import BAD_METHOD, NO_ROUTE, ApiError
from griffin.server.http.asgi import Receive, Scope, Send

# Nothing but what this server itself serves; no script or style in the HTML, no frames, forms or
# bases.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
    }
)
_MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class File:
    """A file of the page. path: of its URL. headers: all that its answer has."""

    path: str
    body: bytes
    headers: Mapping[str, str]

    def reply(self, method: str, known: str | None = None) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of an answer.

        known: the If-None-Match header. Raises ApiError (405) for a method that only a form would
               send.
        """
        if method not in ("GET", "HEAD"):
            raise ApiError(
                BAD_METHOD, f"{self.path} is read with GET", headers={"allow": "GET, HEAD"}
            )
        headers = dict(self.headers)
        if (
            known is not None
            and "etag" in headers
            and headers["etag"] in known.replace("W/", "").split(", ")
        ):
            del headers["content-length"], headers["content-type"]
            return 304, headers, b""
        return 200, headers, b"" if method == "HEAD" else self.body


def read_page() -> Mapping[str, File]:
    """Read the page; return its files by paths of URLs: "/", and /page/NAME for the others.

    The page says nothing about anybody, so no key is asked for it; it asks for one itself if it
    needs one.
    """
    found: dict[str, File] = {}
    for entry in files("griffin.server").joinpath("page").iterdir():
        ending = entry.name[entry.name.rfind(".") :]
        if ending not in _MEDIA:
            continue
        body = entry.read_bytes()
        headers = {"content-type": _MEDIA[ending], "content-length": str(len(body)), **HEADERS}
        if entry.name == "index.html":
            # What names the other files is asked for each time; so a new version is seen at once.
            path, headers["cache-control"] = "/", "no-store"
        else:
            path, headers["cache-control"] = f"/page/{entry.name}", "no-cache"
            headers["etag"] = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        found[path] = File(path, body, MappingProxyType(headers))
    return MappingProxyType(found)


class ChatPage:
    """The page as an ASGI application, to be mounted anywhere. files: by path."""

    def __init__(self) -> None:
        self.files = read_page()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; anything that is no file of the page gets a 404."""
        known = dict(scope["headers"]).get(b"if-none-match", b"").decode("latin-1")
        try:
            file = self.files.get(scope["path"])
            if file is None:
                raise ApiError(NO_ROUTE, "there is nothing here; the chat page is at /")
            status, headers, body = file.reply(scope["method"], known or None)
        except ApiError as error:
            status, headers, body = error.status, {**HEADERS, **error.headers}, error.body()
        start: dict[str, Any] = {"type": "http.response.start", "status": status}
        start["headers"] = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send(start)
        await send({"type": "http.response.body", "body": body})
