"""What the server is and how it does: models, /v1/server, health, metrics, the OpenAPI document."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Literal

import msgspec

from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.errors import ApiError
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.http.openapi import openapi
from griffin.server.metrics import text_of_all
from griffin.server.protocol import listing
from griffin.server.service import Service


async def models(service: Service, exchange: Exchange) -> Reply:
    """List the one model."""
    return Reply(p.encode(listing.ModelList(data=[_model(service)])))


async def model(service: Service, exchange: Exchange) -> Reply:
    """Show the model."""
    service.check_model(exchange.params["model"])
    return Reply(p.encode(_model(service)))


async def server(service: Service, exchange: Exchange) -> Reply:
    """Show what the server holds and allows, all replicas together."""
    own = replica_object(service)
    replicas = [own]
    if service.peers is not None:
        replicas = [
            listing.ReplicaObject(replica=number, up=False)
            if told is None
            else msgspec.json.decode(told, type=listing.ReplicaObject)
            for number, told in (await service.peers.ask("server")).items()
        ]
    sizes: Counter[str] = Counter()
    for one in replicas:
        sizes.update(one.bytes)
    store = service.store
    if store is not None:
        sizes["sessions"] = await service.disk(lambda: store.usage().nbytes)
    shown = listing.ServerObject(
        version=service.version,
        model=service.name,
        system_fingerprint=service.system_fingerprint,
        slots=listing.Slots(
            total=sum(one.slots.total for one in replicas),
            busy=sum(one.slots.busy for one in replicas),
        ),
        waiting=sum(one.waiting for one in replicas),
        running=sum(one.running for one in replicas),
        paused=sum(one.paused for one in replicas),
        bytes=dict(sizes),
        uptime_seconds=own.uptime_seconds,
        limits=listing.limits_object(service.limits),
        replica=own.replica,
        replicas=replicas,
    )
    return Reply(p.encode(shown))


async def health(service: Service, exchange: Exchange) -> Reply:
    """Say that the process lives."""
    return Reply(p.encode(listing.Health(status="ok")))


async def ready(service: Service, exchange: Exchange) -> Reply:
    """Say whether requests are taken, by this replica or another."""
    status = _status(service)
    if status != "ok" and service.peers is not None:
        told = (await service.peers.ask("ready")).values()
        status = "ok" if b"ok" in told else status
    if status != "ok":
        return Reply(p.encode(listing.Health(status=status)), {"retry-after": "2"}, 503)
    return Reply(p.encode(listing.Health(status="ok")))


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


def replica_object(service: Service) -> listing.ReplicaObject:
    """Return what this process holds and does."""
    number = 1 if service.peers is None else service.peers.config.number
    stats = service.engine.stats()
    model = service.llm.model
    return listing.ReplicaObject(
        replica=number,
        slots=listing.Slots(total=stats.slots, busy=stats.busy),
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


def _status(service: Service) -> Literal["ok", "draining", "broken"]:
    if service.broken:
        return "broken"
    return "draining" if service.draining else "ok"


async def document(service: Service, exchange: Exchange) -> Reply:
    """Give the OpenAPI document, with this server's limits."""
    return Reply(p.encode(openapi(service.limits, service.version)))


def _model(service: Service) -> listing.ModelObject:
    llm = service.llm
    config = llm.model.config
    stats = service.engine.stats()
    return listing.ModelObject(
        id=service.name,
        created=service.created,
        griffin=listing.ModelExtras(
            parameters=service.parameters,
            weights=service.fingerprint.quantization
            if service.fingerprint.quantization != "none"
            else service.fingerprint.dtype,
            state_bytes=stats.slot_bytes // stats.slots,
            window=config.attention_window_size if "attention" in config.block_types else 0,
            chat=_is_chat(service),
        ),
    )


def _is_chat(service: Service) -> bool:
    try:
        return service.llm.chat_format is not None
    except ValueError:
        return False


def no_route(exchange: Exchange) -> ApiError:
    """Return the answer to a path that is none."""
    path = exchange.scope["path"][:100]
    return ApiError(
        errors.NO_ROUTE, f"there is nothing at {path!r}; GET /openapi.json lists what there is"
    )
