"""/api: Ollama's interface to the models that are served."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import msgspec

from griffin.engine import Context
from griffin.server import protocol as p
from griffin.server.answering import answer, job
from griffin.server.constraints import Form, constrain
from griffin.server.conversations import Thread
from griffin.server.endpoints.chat.body import ChatRequest
from griffin.server.endpoints.chat.route import converse
from griffin.server.endpoints.embeddings.body import EmbeddingsRequest
from griffin.server.endpoints.embeddings.route import measure
from griffin.server.endpoints.models.route import is_chat
from griffin.server.endpoints.ollama.answers import (
    MEDIA,
    Lines,
    Write,
    chat_line,
    nothing,
    text_line,
)
from griffin.server.endpoints.ollama.body import (
    OllamaRequest,
    parse_embed,
    parse_embed_prompt,
    parse_generate,
    parse_ollama_chat,
    parse_show,
)
from griffin.server.endpoints.ollama.described import described, running, served, shown
from griffin.server.endpoints.ollama.reply import (
    OllamaModels,
    OllamaVector,
    OllamaVectors,
    OllamaVersion,
    RunningModels,
    nanoseconds,
)
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.limits import Limits
from griffin.server.service import Handler, Service

_VERSION = "0.12.11"  # programs look whether Ollama is new enough for what they need


async def version(service: Service, exchange: Exchange) -> Reply:
    """Say which Ollama this is as good as."""
    return Reply(p.encode(OllamaVersion(version=_VERSION)))


async def tags(service: Service, exchange: Exchange) -> Reply:
    """List the models, each by all of its names."""
    models = [
        described(service, served, name) for served in service.models for name in served.names
    ]
    return Reply(p.encode(OllamaModels(models=models)))


async def ps(service: Service, exchange: Exchange) -> Reply:
    """List the models as such that are loaded."""
    models = [running(service, served) for served in service.models]
    return Reply(p.encode(RunningModels(models=models)))


async def show(service: Service, exchange: Exchange) -> Reply:
    """Show a model."""
    body = await service.body(exchange)
    asked, ignored = await service.think(len(body), lambda: parse_show(body, service.limits))
    service = service.serving(exchange, served(service, asked.model or asked.name))
    return Reply(p.encode(shown(service)), p.ignored_header(ignored))


async def chat(service: Service, exchange: Exchange) -> Reply | None:
    """Answer a conversation."""
    return await _answer(service, exchange, parse_ollama_chat, chat_line)


async def generate(service: Service, exchange: Exchange) -> Reply | None:
    """Answer a message, or continue a text."""
    return await _answer(service, exchange, parse_generate, text_line)


async def _answer(
    service: Service,
    exchange: Exchange,
    parse: Callable[[bytes, Limits], OllamaRequest],
    write: Write,
) -> Reply | None:
    body = await service.body(exchange)
    asked = await service.think(len(body), lambda: parse(body, service.limits))
    said = replace(asked.chat, model=served(service, asked.chat.model))
    named = asked.chat.model or service.name
    if not said.messages:
        service.serving(exchange, said.model)
        line = p.encode(nothing(write, named, "unload" if asked.unload else "load"))
        ignored = p.ignored_header(said.ignored)
        return Reply(line + b"\n", ignored, media=MEDIA if said.stream else "application/json")

    def render(_service: Service, form: Form) -> Lines:
        return Lines(named, write, form, exchange.read_at)

    text = asked.text
    if text is None and write is text_line and not is_chat(service):
        text = "\n\n".join(message.content for message in said.messages)
    if text is not None:
        return await _continue(service, exchange, said, text, render)
    return await converse(service, exchange, said, size=len(body), render=render, param="format")


async def _continue(
    service: Service,
    exchange: Exchange,
    asked: ChatRequest,
    text: str,
    render: Callable[[Service, Form], Lines],
) -> Reply | None:
    """Go on with a text as it is."""
    service.check_ready()
    service = service.serving(exchange, asked.model)
    ids = await service.think(len(text), lambda: service.text_ids(text))
    service.check_prompt(ids, "prompt")
    thread = Thread(Context().then(ids))
    form = Form(answer=asked.format, param="format")
    grammar, passed = await constrain(service, form)
    return await answer(
        service,
        exchange,
        [job(service, thread.context, asked.sampling, grammar=grammar)],
        thread,
        render(service, form),
        streamed=asked.stream,
        headers=p.ignored_header((*asked.ignored, *passed)),
    )


async def embed(service: Service, exchange: Exchange) -> Reply:
    """Turn texts into vectors."""
    named, asked, size = await _texts(service, exchange, parse_embed)

    def write(_name: str, written: Iterable[bytes], tokens: int) -> OllamaVectors:
        vectors: list[Any] = [*map(msgspec.Raw, written)]
        spent = nanoseconds(time.perf_counter() - exchange.read_at)
        return OllamaVectors(
            model=named,
            embeddings=vectors,
            total_duration=spent,
            load_duration=0,
            prompt_eval_count=tokens,
        )

    return await measure(service, exchange, asked, size=size, write=write)


async def embed_prompt(service: Service, exchange: Exchange) -> Reply:
    """Turn a text into a vector."""
    _, asked, size = await _texts(service, exchange, parse_embed_prompt)

    def write(_name: str, written: Iterable[bytes], tokens: int) -> OllamaVector:
        vector: Any = msgspec.Raw(*written)
        return OllamaVector(embedding=vector)

    return await measure(service, exchange, asked, size=size, write=write)


async def _texts(
    service: Service,
    exchange: Exchange,
    parse: Callable[[bytes, Limits], EmbeddingsRequest],
) -> tuple[str, EmbeddingsRequest, int]:
    """Return what the request calls the model, what it asks, and the bytes it was read from."""
    body = await service.body(exchange)
    asked = await service.think(len(body), lambda: parse(body, service.limits))
    named = asked.model or service.name
    return named, replace(asked, model=served(service, asked.model)), len(body)


HANDLERS: dict[str, Handler] = {
    "GET /api/version": version,
    "GET /api/tags": tags,
    "GET /api/ps": ps,
    "POST /api/show": show,
    "POST /api/chat": chat,
    "POST /api/generate": generate,
    "POST /api/embed": embed,
    "POST /api/embeddings": embed_prompt,
}
