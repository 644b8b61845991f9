"""The models, as Ollama's clients want them described."""

from __future__ import annotations

import msgspec

from griffin.server.endpoints.models.route import is_chat, weights
from griffin.server.endpoints.ollama.reply import (
    Details,
    ModelDetails,
    OllamaModel,
    RunningModel,
    moment,
)
from griffin.server.served import Served
from griffin.server.service import Service

LATEST = ":latest"
_NEVER = "9999-12-31T23:59:59Z"
_TYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "K"), (1, ""))


def served(service: Service, name: str | None) -> str | None:
    """Return a name as it is served: to Ollama no tag is the tag "latest"."""
    return name if name is None or name in service.names else name.removesuffix(LATEST)


def described(service: Service, served: Served, name: str) -> OllamaModel:
    """Return a model by one of its names."""
    model, held = service.llm.model, weights(service)
    tagged = name if ":" in name else name + LATEST
    return OllamaModel(
        name=tagged,
        model=tagged,
        modified_at=moment(service.created),
        size=sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())),
        digest=served.fingerprint.digest,
        details=Details(
            parent_model=served.parent or "",
            parameter_size=_short(service.parameters),
            quantization_level=_TYPES.get(held, held.upper()),
        ),
    )


def running(service: Service, served: Served) -> RunningModel:
    """Return a model as one that is loaded, and stays."""
    model = described(service, served, served.name)
    return RunningModel(
        **msgspec.structs.asdict(model),
        expires_at=_NEVER,
        size_vram=0 if service.llm.model.device.type == "cpu" else model.size,
        context_length=service.limits.max_prompt_tokens,
    )


def shown(service: Service) -> ModelDetails:
    """Return what there is to know of the model that answers."""
    served, config = service.served, service.llm.model.config
    model = described(service, served, served.name)
    family = model.details.family
    return ModelDetails(
        details=model.details,
        model_info={
            "general.architecture": family,
            "general.parameter_count": service.parameters,
            f"{family}.block_count": len(config.block_types),
            f"{family}.context_length": service.limits.max_prompt_tokens,
            f"{family}.embedding_length": config.width,
            f"{family}.attention.sliding_window": config.attention_window_size,
        },
        capabilities=["completion", "tools"] if is_chat(service) else ["completion"],
        modified_at=model.modified_at,
    )


def _short(count: int) -> str:
    unit, name = next(one for one in _UNITS if count >= one[0] or one[0] == 1)
    return f"{count / unit:.1f}{name}"
