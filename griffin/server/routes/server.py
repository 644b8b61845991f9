"""What the server is and how it does: models, /v1/server, health, metrics, the OpenAPI document."""

from __future__ import annotations

import time

from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.errors import ApiError
from griffin.server.exchange import Exchange, Reply
from griffin.server.openapi import openapi
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
    """Show what the server holds and allows."""
    stats = service.engine.stats()
    llm = service.llm
    sizes = {
        "weights": sum(t.nbytes for t in (*llm.model.parameters(), *llm.model.buffers())),
        "slots": stats.slot_bytes,
        "kept": stats.kept_bytes,
        "prefix_cache": stats.cache_bytes,
    }
    store = service.store
    if store is not None:
        sizes["sessions"] = await service.disk(lambda: store.usage().nbytes)
    shown = listing.ServerObject(
        version=service.version,
        model=service.name,
        system_fingerprint=service.system_fingerprint,
        slots=listing.Slots(total=stats.slots, busy=stats.busy),
        waiting=stats.waiting,
        running=stats.running,
        paused=stats.paused,
        bytes=sizes,
        uptime_seconds=time.monotonic() - service.started,
        limits=listing.limits_object(service.limits),
    )
    return Reply(p.encode(shown))


async def health(service: Service, exchange: Exchange) -> Reply:
    """Say that the process lives."""
    return Reply(p.encode(listing.Health(status="ok")))


async def ready(service: Service, exchange: Exchange) -> Reply:
    """Say whether requests are taken."""
    if service.draining:
        return Reply(p.encode(listing.Health(status="draining")), {"retry-after": "2"}, 503)
    return Reply(p.encode(listing.Health(status="ok")))


async def metrics(service: Service, exchange: Exchange) -> Reply:
    """Give the counters to Prometheus."""
    return Reply(service.metrics.text(), media="text/plain; version=0.0.4; charset=utf-8")


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
    return ApiError(errors.NO_ROUTE, f"there is nothing at {path!r}; GET /openapi.json lists what there is")
