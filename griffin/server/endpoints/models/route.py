"""GET /v1/models: the base and its adapters, each by all of its names."""

from __future__ import annotations

from griffin.sampling import CHAT
from griffin.server import protocol as p
from griffin.server.endpoints.models.reply import ModelExtras, ModelList, ModelObject
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.served import Served
from griffin.server.service import Handler, Service


async def models(service: Service, exchange: Exchange) -> Reply:
    """List the models, once a name."""
    listed = [_model(service, served, name) for served in service.models for name in served.names]
    return Reply(p.encode(ModelList(data=listed)))


async def model(service: Service, exchange: Exchange) -> Reply:
    """Show a model."""
    view = service.serving(exchange, exchange.params["model"])
    return Reply(p.encode(_model(service, view.served, view.name)))


def _model(service: Service, served: Served, name: str) -> ModelObject:
    llm = served.llm
    config = llm.model.config
    stats = service.engine.stats()
    return ModelObject(
        id=name,
        created=service.created,
        root=served.root,
        parent=served.parent,
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
