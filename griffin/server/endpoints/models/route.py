"""GET /v1/models: the one model, by each of its names."""

from __future__ import annotations

from griffin.sampling import CHAT
from griffin.server import protocol as p
from griffin.server.endpoints.models.reply import ModelExtras, ModelList, ModelObject
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.service import Handler, Service


async def models(service: Service, exchange: Exchange) -> Reply:
    """List the one model, once a name."""
    return Reply(p.encode(ModelList(data=[_model(service, name) for name in service.names])))


async def model(service: Service, exchange: Exchange) -> Reply:
    """Show the model."""
    name = service.check_model(exchange.params["model"])
    return Reply(p.encode(_model(service, name)))


def _model(service: Service, name: str) -> ModelObject:
    llm = service.llm
    config = llm.model.config
    stats = service.engine.stats()
    return ModelObject(
        id=name,
        created=service.created,
        griffin=ModelExtras(
            parameters=service.parameters,
            weights=weights(service),
            state_bytes=stats.slot_bytes // stats.slots,
            window=config.attention_window_size if "attention" in config.block_types else 0,
            chat=is_chat(service),
            caution=llm.caution,
            sampling={name: getattr(llm.chat_defaults, name) for name in CHAT},
        ),
    )


def weights(service: Service) -> str:
    """Return the format that the weights have."""
    packed = service.fingerprint.quantization
    return service.fingerprint.dtype if packed == "none" else packed


def is_chat(service: Service) -> bool:
    """Return whether the model answers conversations."""
    try:
        return service.llm.chat_format is not None
    except ValueError:
        return False


HANDLERS: dict[str, Handler] = {
    "GET /v1/models": models,
    "GET /v1/models/{model}": model,
}
