"""What the server is and how it does: /v1/server, health, metrics, the OpenAPI document."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Literal

import msgspec

from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.endpoints.ollama import ABSENT
from griffin.server.endpoints.server.reply import (
    Health,
    ReplicaObject,
    ServerObject,
    SlotCounts,
    limits_object,
)
from griffin.server.errors import ApiError
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.http.openapi import openapi
from griffin.server.metrics import text_of_all
from griffin.server.service import Handler, Service


async def server(service: Service, exchange: Exchange) -> Reply:
    """Show what the server holds and allows, all replicas together."""
    own = replica_object(service)
    replicas = [own]
    if service.peers is not None:
        replicas = [
            ReplicaObject(replica=number, up=False)
            if told is None
            else msgspec.json.decode(told, type=ReplicaObject)
            for number, told in (await service.peers.ask("server")).items()
        ]
    sizes: Counter[str] = Counter()
    for one in replicas:
        sizes.update(one.bytes)
    store = service.store
    if store is not None:
        sizes["sessions"] = await service.disk(lambda: store.usage().nbytes)
    shown = ServerObject(
        version=service.version,
        model=service.name,
        system_fingerprint=service.system_fingerprint,
        slots=SlotCounts(
            total=sum(one.slots.total for one in replicas),
            busy=sum(one.slots.busy for one in replicas),
        ),
        waiting=sum(one.waiting for one in replicas),
        running=sum(one.running for one in replicas),
        paused=sum(one.paused for one in replicas),
        bytes=dict(sizes),
        uptime_seconds=own.uptime_seconds,
        limits=limits_object(service.limits),
        replica=own.replica,
        replicas=replicas,
    )
    return Reply(p.encode(shown))


async def health(service: Service, exchange: Exchange) -> Reply:
    """Say that the process lives; one whose engine broke or hangs does not."""
    status = _status(service)
    if status in ("broken", "hung"):
        return Reply(p.encode(Health(status=status)), {"retry-after": "2"}, 503)
    return Reply(p.encode(Health(status="ok")))


async def ready(service: Service, exchange: Exchange) -> Reply:
    """Say whether requests are taken, by this replica or another."""
    status = _status(service)
    if status != "ok" and service.peers is not None:
        told = (await service.peers.ask("ready")).values()
        status = "ok" if b"ok" in told else status
    if status != "ok":
        return Reply(p.encode(Health(status=status)), {"retry-after": "2"}, 503)
    return Reply(p.encode(Health(status="ok")))


async def metrics(service: Service, exchange: Exchange) -> Reply:
    """Give the counters to Prometheus, those of all replicas."""
    if service.peers is None:
        text = service.metrics.text()
    else:
        text = text_of_all(await service.peers.ask("metrics"))
    return Reply(text, media="text/plain; version=0.0.4; charset=utf-8")


def told(service: Service) -> dict[str, Callable[[], bytes]]:
    """Return what a replica tells the others, by what they ask."""
    return {
        "server": lambda: msgspec.json.encode(replica_object(service)),
        "ready": lambda: _status(service).encode(),
        "metrics": service.metrics.families,
    }


def replica_object(service: Service) -> ReplicaObject:
    """Return what this process holds and does."""
    number = 1 if service.peers is None else service.peers.config.number
    stats = service.engine.stats()
    model = service.llm.model
    return ReplicaObject(
        replica=number,
        slots=SlotCounts(total=stats.slots, busy=stats.busy),
        waiting=stats.waiting,
        running=stats.running,
        paused=stats.paused,
        bytes={
            "weights": sum(t.nbytes for t in (*model.parameters(), *model.buffers())),
            "slots": stats.slot_bytes,
            "kept": stats.kept_bytes,
            "prefix_cache": stats.cache_bytes,
        },
        uptime_seconds=time.monotonic() - service.started,
    )


def _status(service: Service) -> Literal["ok", "draining", "broken", "hung"]:
    if service.hung:
        return "hung"
    if service.broken:
        return "broken"
    return "draining" if service.draining else "ok"


async def document(service: Service, exchange: Exchange) -> Reply:
    """Give the OpenAPI document, with this server's limits."""
    document = openapi(service.limits, service.version, service.root_path)
    return Reply(p.encode(document))


def no_route(exchange: Exchange) -> ApiError:
    """Return the answer to a path that is none."""
    path = exchange.scope["path"][:100]
    instead = next(
        (what for start, what in ABSENT.items() if path.startswith(start)),
        "GET /openapi.json lists what there is",
    )
    return ApiError(errors.NO_ROUTE, f"there is nothing at {path!r}; {instead}")


HANDLERS: dict[str, Handler] = {
    "GET /v1/server": server,
    "GET /health": health,
    "GET /ready": ready,
    "GET /metrics": metrics,
}
