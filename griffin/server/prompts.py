"""Requests to prompts: messages and texts to ids, options to what the engine takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from griffin.engine import Context, Request, Seen
from griffin.grammar import CompiledGrammar
from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.bridge import Job
from griffin.server.protocol import Message
from griffin.server.service import Service
from griffin.server.writer import Writer


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where an answer begins: ids to read after a state, which may be none.

    before: tokens the state has read. seen: marks them, for the repetition penalty.
    """

    ids: Sequence[int]
    state: Any = None
    seen: Any = None
    before: int = 0


def chat_ids(service: Service, messages: Sequence[Message], param: str = "messages") -> list[int]:
    """Return the ids of a conversation, up to where the answer begins; ApiError for what cannot be
    one."""
    try:
        return service.llm.chat_format.ids(p.turns(messages))
    except ValueError as error:
        raise errors.of_value_error(error, param) from None


def chat_start(service: Service, messages: Sequence[Message], param: str = "messages") -> Start:
    """Return where the answer to a whole conversation begins."""
    ids = chat_ids(service, messages, param)
    service.check_prompt(ids, param)
    return Start(ids=ids)


def text_ids(
    service: Service, prompt: str | tuple[int, ...], param: str = "prompt"
) -> Sequence[int]:
    """Return a text's ids, BOS first, or ids as they are."""
    if not isinstance(prompt, str):
        return prompt
    try:
        return service.llm.tokenizer.encode(prompt)
    except ValueError as error:
        raise errors.of_value_error(error, param) from None


def job(
    service: Service,
    start: Start,
    sampling: dict[str, Any],
    *,
    n: int = 1,
    first: int = 0,
    chat: bool = False,
    keep_last: bool = False,
    shift: int = 0,
    grammar: CompiledGrammar | None = None,
) -> Job:
    """Return the job of one prompt with n answers, the first of which has the number `first`.

    grammar: what each of them must look like.
    """
    llm = service.llm
    params = service.params(sampling)
    stop_ids = llm.stop_ids | llm.chat_format.stop_ids if chat else llm.stop_ids
    request = Request(
        context=Context(
            state=start.state,
            pending=tuple(start.ids),
            seen=Seen() if start.seen is None else Seen(start.seen),
            tokens=start.before + len(start.ids),
        ),
        params=params,
        stop_ids=stop_ids,
        vocab_size=llm.tokenizer.vocab_size,
        constraint=None if grammar is None else partial(grammar.constraint, stop_ids),
    )
    writers = [
        Writer(
            llm.tokenizer,
            first + choice,
            params.stop,
            logprobs=params.logprobs is not None,
            keep_last=keep_last,
            shift=shift,
        )
        for choice in range(n)
    ]
    return Job(request=request, writers=writers)
