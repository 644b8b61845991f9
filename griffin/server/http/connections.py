"""uvicorn's HTTP connections, with an end to patience: how many, and how long headers may take."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from griffin.server.errors import INVALID, ApiError
from griffin.server.http.crowd import Crowd


def bounded_protocol(
    most: int, header_seconds: float, idle_seconds: float
) -> type[asyncio.Protocol]:
    """Return the protocol for `uvicorn.Config(http=...)`.

    most:           connections at a time; who goes where more come, Crowd says.
    header_seconds: what a client has for the headers of a request, from connecting or from their
                    first byte.
    idle_seconds:   how long a connection stays open between requests.
    The application finds two functions in scope["state"]: `abort` closes the connection and drops
    what was not sent; `known` takes who asks, and returns whether the connection may stay.
    `crowd` of the protocol has all of them.
    """

    class BoundedProtocol(H11Protocol):
        crowd = Crowd(most)
        _late: asyncio.TimerHandle | None = None

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.timeout_keep_alive = idle_seconds
            self.access_log = False  # it would write paths, and these hold names of sessions

        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().connection_made(transport)
            own = {"abort": transport.abort, "known": partial(self.crowd.knows, self)}
            self.app_state = {**self.app_state, **own}
            self._expect()
            self.crowd.come(self)

        @property
        def idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def leave(self) -> None:
            self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self._arrived()
            self.crowd.go(self)
            super().connection_lost(exc)

        def handle_events(self) -> None:
            super().handle_events()
            # IDLE: no request has begun, so what came is a part of its headers.
            if self.conn.their_state is h11.IDLE and any(self.conn.trailing_data):
                self._expect()
            elif self.conn.their_state is not h11.IDLE:
                self._arrived()

        def send_400_response(self, msg: str) -> None:
            """Refuse what is no HTTP, in the form in which everything else is refused."""
            error = sys.exception()  # h11's, which says what is wrong and may know a status
            if self.cycle is not None:  # whatever it still does, nobody hears
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                self.transport.abort()  # in the middle of an answer, or after it
                return
            status = getattr(error, "error_status_hint", 400)
            refusal = ApiError(INVALID._replace(status=status), f"{msg.rstrip('.')}: {error}")
            headers = {
                **refusal.headers,
                "content-type": "application/json",
                "connection": "close",
            }
            for event in (
                h11.Response(status_code=status, headers=list(headers.items())),
                h11.Data(data=refusal.body()),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def _expect(self) -> None:
            if self._late is None:
                self._late = self.loop.call_later(header_seconds, self._give_up)

        def _arrived(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _give_up(self) -> None:
            self._late = None
            self.transport.abort()

        def __repr__(self) -> str:
            return f"<connection {self.client}>"

    kind: Any = BoundedProtocol
    return kind
