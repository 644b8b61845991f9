"""A service behind a socket: uvicorn, told when to stop and how long to wait."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn

from griffin.server.app import App
from griffin.server.endpoints.server.route import told
from griffin.server.fleet.acceptor import Acceptor
from griffin.server.fleet.peers import Peers
from griffin.server.fleet.replica import Link, ReplicaConfig
from griffin.server.http.connections import bounded_protocol
from griffin.server.http.descriptors import room_for
from griffin.server.http.sockets import url_of
from griffin.server.logs import log_to_stderr
from griffin.server.service import Service

log = logging.getLogger("griffin.server")

# How long the engine's thread may keep the others waiting, where a small model is mostly Python.
_SWITCH_SECONDS = 0.0005
FAILED = 70  # exit code where a step hangs or the engine breaks: an internal error, in sysexits.h


class Server(uvicorn.Server):
    """Serve a Service until SIGINT or SIGTERM; then drain, and end without an error.

    listeners:  where to listen: what `bound` returned.
    announce:   called with the address when it listens.
    tls:        what speaks TLS; plain HTTP if omitted.
    trusted:    addresses of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.
    replica:    this process as one of several at one address; then its sockets are used instead.
    link:       to the supervisor, which started them.

    After the signal no new work is taken. What is under way has `drain_seconds` to end; what has
    not ended by then gets an error that says so. A second SIGINT does not wait.
    """

    def __init__(
        self,
        service: Service,
        listeners: Sequence[socket.socket] = (),
        *,
        backlog: int = 512,
        log: bool = False,
        announce: Callable[[str], object] | None = None,
        tls: ssl.SSLContext | None = None,
        trusted: Sequence[str] = (),
        replica: ReplicaConfig | None = None,
        link: Link | None = None,
    ) -> None:
        settings = service.settings
        if log:
            log_to_stderr(replica.number if replica else None)
        config = uvicorn.Config(
            App(service),
            http=bounded_protocol(
                room_for(settings.max_connections), settings.header_seconds, settings.idle_seconds
            ),
            ws="none",
            lifespan="on",
            proxy_headers=bool(trusted),  # anybody else's say nothing
            forwarded_allow_ips=list(trusted),
            server_header=False,
            access_log=False,
            log_config=None,
            backlog=backlog,
            timeout_graceful_shutdown=int(settings.drain_seconds) + 5,
            h11_max_incomplete_event_size=settings.max_header_bytes,
        )
        super().__init__(config)
        self.service = service
        self._listeners = list(listeners)
        self._announce = announce
        self._tls = tls
        self._link = link
        self._broke = False
        self._loop: asyncio.AbstractEventLoop | None = None
        if replica is not None:
            service.replica = str(replica.number)
            service.peers = Peers(replica, told(service))

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; once it has started."""
        name = self.servers[0].sockets[0].getsockname()
        return name[0], name[1]

    @property
    def url(self) -> str:
        """The address for people."""
        return url_of(self.servers[0].sockets[0], self._tls is not None)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve in this process, which does nothing else."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        super().run(sockets)
        if self.service.hung:  # threads that never end are not waited for
            logging.shutdown()
            os._exit(FAILED)
        if self._broke:
            sys.exit(FAILED)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup([])
        self.started = False  # not before it listens
        if self.service.peers is not None:
            await self._start_beside(self.service.peers)
        elif self._tls is not None:
            self.servers = [self._acceptor(self._listeners, None)]
        else:
            self.servers = [
                await self._loop.create_server(
                    self._protocol, sock=one, backlog=self.config.backlog
                )
                for one in self._listeners
            ]
        self.started = True
        if self._announce is not None:
            self._announce(self.url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: what is under way first, then the rest."""
        await super().shutdown(sockets)
        if self.service.peers is not None:
            await self.service.peers.close()

    async def on_tick(self, counter: int) -> bool:
        """Look after things, ten times a second; return whether it is time to end."""
        if not self.service.hung and self.service.check_steps():
            log.error(
                "a step of the model has not ended after %.0f s; this process ends",
                self.service.watchdog.limit,
            )
            self.stop()
        if self._link is not None and counter % 10 == 0:
            self._link.beat()
        if self.service.broken:
            log.error("the engine broke; this process ends, so that another takes its place")
            self._broke = True
            self.stop()
        return await super().on_tick(counter)

    def _protocol(self) -> asyncio.Protocol:
        """Return what speaks on one connection."""
        kind: Any = self.config.http_protocol_class
        return kind(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=self._loop,
        )

    def _acceptor(self, sockets: Sequence[socket.socket], load: Callable[[], int] | None) -> Any:
        """Return what accepts connections, as Acceptor has it. Of TLS, handshakes count, too."""
        tls: dict[str, Any] = {}
        if self._tls is not None:
            seconds = self.service.settings.header_seconds
            tls = {"ssl": self._tls, "ssl_handshake_timeout": seconds}
        kind: Any = self.config.http_protocol_class
        backlog = self.config.backlog
        return Acceptor(sockets, self._protocol, load, backlog, tls=tls, crowd=kind.crowd)

    async def _start_beside(self, peers: Peers) -> None:
        """Begin to answer beside others."""
        await peers.open()
        state = self.server_state
        self.servers = [self._acceptor(peers.config.sockets(), lambda: len(state.tasks))]
        if self._link is not None:
            self._link.ready()

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
        """Listen to signals while serving. uvicorn raises them again at the end; here they ask for
        exit 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def _count_down(self) -> None:
        assert self._loop is not None
        self._loop.call_later(
            self.service.settings.drain_seconds,
            self.service.abort,
            "the server is shutting down; ask again",
        )
