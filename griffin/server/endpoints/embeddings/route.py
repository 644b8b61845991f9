"""POST /v1/embeddings."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterable, Sequence

import msgspec
from torch import Tensor

from griffin.engine import embed
from griffin.server import protocol as p
from griffin.server.endpoints.embeddings.body import EmbeddingsRequest, parse_embeddings
from griffin.server.endpoints.embeddings.reply import embeddings
from griffin.server.errors import INVALID, ApiError
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.measuring import Turns
from griffin.server.protocol.bounds import check_most
from griffin.server.service import Handler, Service


async def create(service: Service, exchange: Exchange) -> Reply:
    """Turn texts into vectors."""
    body = await service.body(exchange)
    asked = await service.think(len(body), lambda: parse_embeddings(body, service.limits))
    return await measure(
        service,
        exchange,
        asked,
        size=len(body),
        write=embeddings,
    )


async def measure(
    service: Service,
    exchange: Exchange,
    asked: EmbeddingsRequest,
    *,
    size: int,
    write: Callable[[str, Iterable[bytes], int], msgspec.Struct],
) -> Reply:
    """Turn texts that came in any dialect into vectors.

    size: bytes of the body. write: given the model's name, the JSON of each vector, and the tokens
          of all texts, makes the answer.
    """
    service.check_ready()
    service = service.serving(exchange, asked.model)
    llm = service.llm
    width = llm.model.config.width
    if asked.dimensions is not None and asked.dimensions > width:
        message = f"dimensions is {asked.dimensions}; this model's vectors have {width}"
        raise ApiError(INVALID, message, "dimensions")
    count = len(asked.input) * (asked.dimensions or width)
    check_most(count, f"the vectors hold {count} numbers", service.limits, "max_vectors", "input")
    all_ids = await service.think(size, lambda: _ids(service, asked))
    tokens = sum(map(len, all_ids))
    what = f"input has {tokens} tokens"
    check_most(tokens, what, service.limits, "max_prompt_tokens", "input")

    def made(stop: threading.Event) -> bytes:
        turns = Turns(service.engine, stop)
        vectors = embed(llm.model, all_ids, asked.pooling, rest=turns.rest, adapter=llm.adapter)
        written = (_written(vector, asked) for vector in vectors)
        return p.encode(write(service.name, written, tokens))

    answer = await service.score(exchange, made)
    exchange.tokens = (tokens, 0, 0)
    return Reply(answer, p.ignored_header(asked.ignored))


def _ids(service: Service, asked: EmbeddingsRequest) -> list[Sequence[int]]:
    single = len(asked.input) == 1
    return [
        service.text_ids(text, "input" if single else f"input[{number}]")
        for number, text in enumerate(asked.input)
    ]


def _written(vector: Tensor, asked: EmbeddingsRequest) -> bytes:
    """Return a vector as JSON."""
    if asked.dimensions is not None and asked.dimensions < len(vector):
        vector = vector[: asked.dimensions]
        vector = vector / vector.norm().clamp_min(1e-12)
    if asked.base64:
        return b'"%s"' % base64.b64encode(vector.numpy().astype("<f4").tobytes())
    return p.encode(vector.tolist())


HANDLERS: dict[str, Handler] = {
    "POST /v1/embeddings": create,
}
