"""A real server in a thread of the test's own process, on a free port, with the toy model."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from openai import OpenAI

from griffin.llm import LLM
from griffin.server.build import build
from griffin.server.http.keys import Keys
from griffin.server.http.sockets import bound
from griffin.server.run import Server
from griffin.server.service import Service
from griffin.server.settings import Settings

NAME = "toy"
ALICE, BOB = "alice-key-0123456789", "bob-key-0123456789"
CHAT = {"messages": [{"role": "user", "content": "my secret owl"}], "max_tokens": 4, "seed": 1}


class Live:
    """A server that runs. url: where. service: what is behind it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.service: Service = server.service
        host, port = server.address
        self.host, self.port = host, port
        self.url = f"http://{host}:{port}"

    def openai(self, key: str = "none", **options: Any) -> OpenAI:
        return OpenAI(api_key=key, base_url=f"{self.url}/v1", max_retries=0, timeout=60, **options)

    def http(self, **options: Any) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=60, **options)

    def raw(self, data: bytes, buffer: int | None = None) -> socket.socket:
        """Connect and send some bytes. buffer: bytes that may come unread."""
        connected = socket.socket()
        connected.settimeout(60)
        if buffer is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connected.connect((self.host, self.port))
        connected.sendall(data)
        return connected

    def post(self, path: str, body: dict[str, Any]) -> socket.socket:
        """Send a request and read nothing."""
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\n"
        return self.raw(head.encode() + b"content-length: %d\r\n\r\n" % len(content) + content)

    def busy(self, seconds: float = 60.0) -> bool:
        """Return whether something runs within so many seconds."""
        until = time.monotonic() + seconds
        while not self.service.engine.stats().busy and time.monotonic() < until:
            time.sleep(0.002)
        return self.service.engine.stats().busy > 0

    def idle(self, seconds: float = 60.0) -> bool:
        """Return whether every slot and every body is given back within so many seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            stats = self.service.engine.stats()
            held = self.service.bridge.runs or self.service.budget.held
            if stats.busy == stats.waiting == 0 and not held:
                return True
            time.sleep(0.01)
        return False


def endless(llm: LLM) -> dict[str, Any]:
    """Return the bias that keeps an answer from ending by itself."""
    return {"logit_bias": {str(id): -100 for id in llm.stop_ids}}


@contextmanager
def serving(
    llm: LLM,
    store: Path | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    trusted: Sequence[str] = (),
    **options: Any,
) -> Iterator[Live]:
    """Run a server for a block. options: of griffin.server.build.build."""
    service = build(
        llm, name=NAME, store=store, **{"slots": 4, "chunk": 16, "cache_bytes": 8 << 20} | options
    )
    server = Server(service, bound("127.0.0.1", 0, None), tls=tls, trusted=trusted)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < until, "the server did not start"
        time.sleep(0.005)
    try:
        yield Live(server)
    finally:
        server.stop()
        thread.join(60)
        assert not thread.is_alive(), "the server did not stop"


@contextmanager
def guarded(llm: LLM, store: Path) -> Iterator[Live]:
    """Run a server with the keys of Alice and Bob and small limits."""
    settings = Settings(max_header_bytes=4096, max_connections=20)
    limits = {"max_body_bytes": 100_000}
    with serving(llm, store, keys=Keys([ALICE, BOB]), settings=settings, limits=limits) as live:
        yield live


def as_(live: Live, key: str, **headers: str) -> httpx2.Client:
    return live.http(headers={"authorization": f"Bearer {key}", **headers})


def received(sock: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    received = b""
    try:
        while piece := sock.recv(65536):
            received += piece
    except ConnectionError:
        pass
    return received
