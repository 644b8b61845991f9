"""The application: plain ASGI, so that a client that leaves is noticed at once."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.endpoints import OPERATIONS, failure_of, handlers
from griffin.server.endpoints.server.route import document, no_route
from griffin.server.errors import BAD_METHOD, FORBIDDEN, ApiError, Case
from griffin.server.http.asgi import Gone, Receive, Scope, Send
from griffin.server.http.descriptors import is_exhausted
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.http.front import leave_root
from griffin.server.http.hosts import cors, preflight
from griffin.server.http.static import read_page
from griffin.server.http.target import check_once, take_target
from griffin.server.logs import where
from griffin.server.protocol.operation import Operation
from griffin.server.service import Handler, Service, log
from griffin.server.trim import LARGE
from griffin.server.workers import asking

_HEADERS = Case(431, "invalid_request_error", "request_too_large", False)


class Route(NamedTuple):
    """One method of one path, and who answers it."""

    method: str
    pattern: re.Pattern[str]
    name: str
    public: bool
    handler: Handler


class App:
    """Answer requests for a Service. An ASGI application; its lifespan starts and ends the engine.

    The order: headers not too large, Host and Origin, the path, the key, then the route. What a
    route raises becomes one JSON error. An exception that nobody meant is logged without anything
    that anybody wrote, and answered with 500 and the request's id.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        answered_by = handlers()
        self.routes = [_route(one, answered_by[one.route]) for one in OPERATIONS]
        self.routes.append(
            Route("GET", re.compile(r"/openapi\.json"), "GET /openapi.json", False, document)
        )
        self.page = read_page()
        self.public = frozenset(one.path for one in OPERATIONS if one.public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._http(
                Exchange(scope, receive, send, send_seconds=self.service.settings.send_seconds)
            )
        else:  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1000})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self.service.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.service.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, exchange: Exchange) -> None:
        begun = time.perf_counter()
        name, code = "other", ""
        if self.service.replica:
            exchange.extra["x-griffin-replica"] = self.service.replica
        try:
            try:
                route = self._admit(exchange)
                _check_room(exchange, route is None or route.public)
                if route is None:
                    name = "page"
                else:
                    name = route.name
                    reply = await route.handler(self.service, exchange)
                    if reply is not None:
                        await exchange.answer(reply)
                    code = exchange.extra.get("x-griffin-failed", "")
                if route is None:
                    await self._page(exchange)
            except ApiError as error:
                code = error.code or "bug"
                await self._refuse(exchange, error)
            except Gone:
                raise
            except Exception as error:
                log.error("%s failed: %s", exchange.id, where(error))
                told = errors.bug(exchange.id)
                if is_exhausted(error):
                    message = "the server has no file descriptors left; try again"
                    told = ApiError(errors.NOT_READY, message, retry_after=1.0)
                code = told.code or "bug"
                # In the middle of an answer only closing the connection can tell.
                if exchange.status:
                    raise Gone from None
                await self._refuse(exchange, told)
        except Gone:
            code = code or "client_gone"
            if exchange.status:
                _abort(exchange)
        finally:
            if exchange.weight > LARGE:
                self.service.trim()
            exchange.close()
            self._note(exchange, name, code, time.perf_counter() - begun)

    def _admit(self, exchange: Exchange) -> Route | None:
        """Return a request's route, None for a file of the page; ApiError if it may not have it."""
        service, scope = self.service, exchange.scope
        size = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        if size + len(scope.get("raw_path", b"")) + len(scope.get("query_string", b"")) > (
            most := service.settings.max_header_bytes
        ):
            raise ApiError(_HEADERS, f"the headers have more than {most} bytes; send fewer")
        check_once(scope)
        if (host := take_target(scope)) is not None:
            exchange.headers["host"] = host
        bare = leave_root(scope, service.root_path)
        origin = service.hosts.check(
            exchange.method,
            scope.get("scheme", "http"),
            exchange.headers,
            public=scope["path"] in self.public,
        )
        if origin is not None:
            exchange.extra |= cors(origin)
        path, method = scope["path"], "GET" if exchange.method == "HEAD" else exchange.method
        if bare and method == "GET":
            return Route("GET", re.compile(""), "page", True, _to_page)
        if path in self.page:
            return None
        found = [
            (route, match)
            for route in self.routes
            if (match := route.pattern.fullmatch(path)) is not None
        ]
        route, match = next(((r, m) for r, m in found if r.method == method), (None, None))
        if route is None or match is None:
            if method == "OPTIONS" and origin is not None and found:
                return Route("OPTIONS", found[0][0].pattern, "preflight", True, _preflight)
            # Without a key nobody is told which paths there are.
            service.keys.namespace(exchange.headers)
            if not found:
                raise no_route(exchange)
            allowed = ", ".join(sorted({r.method for r, _ in found}))
            raise ApiError(
                BAD_METHOD,
                f"{method[:16]} is not for this path; it takes {allowed}",
                headers={"allow": allowed},
            )
        if not route.public:
            exchange.namespace = service.keys.namespace(exchange.headers)
            asking.set(exchange)
        exchange.params = match.groupdict()
        return route

    async def _page(self, exchange: Exchange) -> None:
        file = self.page[exchange.scope["path"]]
        status, headers, body = file.reply(exchange.method, exchange.headers.get("if-none-match"))
        await exchange.answer_plain(status, headers, body)

    async def _refuse(self, exchange: Exchange, error: ApiError) -> None:
        body = p.encode(failure_of(exchange.scope["path"]).of(error, exchange.id))
        await exchange.answer(Reply(body, error.headers, error.status))

    def _note(self, exchange: Exchange, name: str, code: str, seconds: float) -> None:
        """Count and log a request: its kind and how it went, nothing that anybody wrote."""
        kind = "error" if code else "ok"
        counts = self.service.metrics.requests
        counts.labels(name, exchange.model, kind, code or "none").inc()
        tokens = ""
        if exchange.tokens is not None:
            tokens = " prompt={} cached={} generated={}".format(*exchange.tokens)
        log.info(
            "%s %s %d %s%.1fms%s",
            *(
                exchange.id,
                name,
                exchange.status,
                f"{code} " if code else "",
                1000 * seconds,
                tokens,
            ),
        )


async def _to_page(service: Service, exchange: Exchange) -> Reply:
    """Send a browser to the page, whose paths are relative to a slash at the end."""
    return Reply(b"", {"location": f"{service.root_path}/"}, 308)


async def _preflight(service: Service, exchange: Exchange) -> Reply:
    origin = exchange.headers.get("origin")
    if origin is None:
        raise ApiError(FORBIDDEN, "a preflight names an origin")
    asked = exchange.headers.get("access-control-request-headers", "")
    return Reply(b"", preflight(origin, asked), 204)


def _check_room(exchange: Exchange, public: bool) -> None:
    """Close a connection for which there is no room: at once where no key was shown."""
    known = exchange.scope.get("state", {}).get("known")
    if known is None or known("" if public else exchange.holder):
        return
    if public:
        _abort(exchange)
        raise Gone
    message = "there are as many connections as there may be; try again"
    headers = {"connection": "close"}
    raise ApiError(errors.NOT_READY, message, retry_after=1.0, headers=headers)


def _abort(exchange: Exchange) -> None:
    abort = exchange.scope.get("state", {}).get("abort")
    if abort is not None:
        abort()


def _route(operation: Operation, handler: Handler) -> Route:
    """Return the route of an operation; a model's name may hold slashes, others may not.

    Where a path begins with /v1, that may be left out: some programs are told an address without.
    """
    parts = re.split(r"{(\w+)}", operation.path)
    pattern = "".join(
        (f"(?P<{part}>{'.+' if part == 'model' else '[^/]+'})" if place % 2 else re.escape(part))
        for place, part in enumerate(parts)
    )
    pattern = re.sub(r"^/v1(?=/)", "(?:/v1)?", pattern)
    return Route(operation.method, re.compile(pattern), operation.route, operation.public, handler)
