"""The server's application in this process: made for files of requests, asked without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from griffin.llm import LLM
from griffin.server.app import App
from griffin.server.build import build
from griffin.server.service import Service
from griffin.server.settings import Settings

_HEADERS = [(b"host", b"localhost"), (b"content-type", b"application/json")]

_PATIENCE = 30 * 86_400.0  # seconds: nobody waits for one answer


def make_service(
    llm: LLM,
    *,
    name: str,
    slots: int = 16,
    chunk: int | None = None,
    cache_bytes: int = 256 << 20,
) -> Service:
    """Return a service for requests that one caller sends, up to twice `slots` at a time.

    name, slots, chunk and cache_bytes are those of `griffin.server.build.build`.
    """
    return build(
        llm,
        name=name,
        slots=slots,
        max_waiting=slots,
        chunk=chunk,
        cache_bytes=cache_bytes,
        settings=Settings(deadline_seconds=_PATIENCE, max_requests_per_key=2 * slots),
    )


@asynccontextmanager
async def opened(service: Service) -> AsyncIterator[App]:
    """Start a service for a block, on the running loop, and close it afterwards."""
    service.open()
    try:
        yield App(service)
    finally:
        await service.close()


async def post(app: App, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Send a body and return the status and what was answered. To cancel it is to go away."""
    content = json.dumps(body).encode()
    over, sent = asyncio.Event(), asyncio.Event()
    status, pieces = 0, list[bytes]()

    async def receive() -> dict[str, Any]:
        if not sent.is_set():
            sent.set()
            return {"type": "http.request", "body": content, "more_body": False}
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            pieces.append(message.get("body", b""))

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [*_HEADERS, (b"content-length", str(len(content)).encode())],
        "client": ("127.0.0.1", 0),
        "server": ("localhost", 80),
    }
    try:
        await app(scope, receive, send)
    finally:
        over.set()
    return status, json.loads(b"".join(pieces))
