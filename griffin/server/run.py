"""A service behind a socket: uvicorn, told when to stop and how long to wait."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn

from griffin.server.app import App
from griffin.server.auth import Keys
from griffin.server.connections import bounded_protocol
from griffin.server.hosts import is_loopback
from griffin.server.service import Service

_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"line": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "griffin.server": {"handlers": ["line"], "level": "INFO", "propagate": False},
        "uvicorn": {"handlers": ["line"], "level": "WARNING", "propagate": False},
        "uvicorn.access": {"handlers": [], "level": "CRITICAL", "propagate": False},
    },
}


class Server(uvicorn.Server):
    """Serve a Service until SIGINT or SIGTERM; then drain, and end without an error.

    host, port: where to listen; port 0 takes a free one. uds: a Unix socket instead, for its owner alone.
    announce:   called with the address when it listens.
    From the signal on no new work is taken. What is under way may end within the service's `drain_seconds`;
    what has not is ended with an error that says so. A second SIGINT does not wait.
    """

    def __init__(
        self,
        service: Service,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        uds: Path | None = None,
        backlog: int = 512,
        log: bool = False,
        announce: Callable[[str], object] | None = None,
    ) -> None:
        settings = service.settings
        config = uvicorn.Config(
            App(service),
            host=host,
            port=port,
            uds=None if uds is None else str(uds),
            http=bounded_protocol(settings.max_connections, settings.header_seconds),
            ws="none",
            lifespan="on",
            proxy_headers=False,  # who asks is told by keys, not by what a header says
            server_header=False,
            access_log=False,
            log_config=_LOGGING if log else None,
            backlog=backlog,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=int(settings.drain_seconds) + 5,
            h11_max_incomplete_event_size=settings.max_header_bytes,
        )
        super().__init__(config)
        self.service = service
        self._announce = announce
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; once it has started."""
        name = self.servers[0].sockets[0].getsockname()
        return name[0], name[1]

    @property
    def url(self) -> str:
        """The address for people."""
        if self.config.uds is not None:
            return f"unix:{self.config.uds}"
        host, port = self.address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        if self.config.uds is not None:
            _close_to_others(Path(self.config.uds))
        await super().startup(sockets)
        if self._announce is not None and self.started:
            self._announce(self.url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop. Called by the signal, or by whoever wants the server to end."""
        if self.service.draining and sig == signal.SIGINT:
            self.force_exit = True
        self.stop()

    def stop(self) -> None:
        """Take no more work, and end when what is under way has ended. From any thread."""
        self.service.draining = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._count_down)
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Listen to signals while serving. uvicorn raises them again at the end; here they ask for exit 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def _count_down(self) -> None:
        assert self._loop is not None
        self._loop.call_later(
            self.service.settings.drain_seconds, self.service.abort, "the server is shutting down; ask again"
        )


def check_open_door(host: str, uds: Path | None, keys: Keys, insecure: bool) -> None:
    """Raise ValueError for a server that anybody on the network could use, unless that is wanted."""
    if uds is None and not is_loopback(host) and not keys and not insecure:
        raise ValueError(
            f"{host} can be reached from other machines, and no API key is set: anybody could use this "
            "server. Give keys with --key-file or --key-env, or say --insecure-no-auth if something else "
            "guards it"
        )


def _close_to_others(path: Path) -> None:
    """Leave a socket of mode 0600 at a path: uvicorn, which would open its own to all, takes over the mode.

    A socket that lies there from before makes room; ValueError for any other file.
    """
    if path.is_socket():
        path.unlink()
    elif path.exists():
        raise ValueError(f"{path} is there already, and is no socket; name another path for --uds")
    with socket.socket(socket.AF_UNIX) as before:
        before.bind(str(path))
    path.chmod(0o600)
