"""What is read into sessions and states without an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.bridge import Job
from griffin.server.conversations.entry import without_bos
from griffin.server.errors import ApiError
from griffin.server.generating import Clock, Shown, collect
from griffin.server.http.exchange import Exchange
from griffin.server.protocol.reading import Reading
from griffin.server.service import Service
from griffin.server.shelves import refusals
from griffin.sessions import Session

READING = "text"  # role of a turn that was read and not answered


def reading_ids(service: Service, reading: Reading) -> Sequence[int]:
    """Return what is to be read, BOS first if it is text or a conversation."""
    if reading.tokens is not None:
        return reading.tokens
    if reading.text is not None:
        return service.text_ids(reading.text, "text")
    try:
        assert reading.messages is not None
        return service.llm.chat_format.ids(p.turns(reading.messages), add_generation_prompt=False)
    except ValueError as error:
        raise errors.of_value_error(error, "messages") from None


async def read_into(
    service: Service,
    exchange: Exchange,
    session: Session,
    reading: Reading,
    *,
    size: int,
    role: str = READING,
) -> int:
    """Read something after a session's head and keep where it led; return how many tokens that
    were.

    It goes through the engine as prompts do. The last token stays pending, so that an answer can go
    on from there.
    """
    ids = await service.think(size, lambda: reading_ids(service, reading))
    if session.head is not None and reading.tokens is None:
        ids = without_bos(service, ids)
    if not ids:
        raise ApiError(errors.INVALID, "there is nothing in it to read", "text")
    service.check_prompt(ids, "text")
    context = (await service.disk(lambda: refusals(session.resume))).then(ids)
    *unread, last = context.pending
    state, pending = context.state, [last]
    if state is None and len(unread) == 1 and service.llm.beginning is not None:
        unread, pending = [], [*unread, last]  # a tuned state stands for BOS, and alone is no state
    if unread:
        # The engine always chooses a token. It is not read, and thrown away.
        before = replace(context, pending=tuple(unread), tokens=context.tokens - 1)
        job = Job.of(
            service.llm.request(before, max_tokens=1, temperature=0),
            service.llm.tokenizer,
            range(1),
        )
        run = await service.start(exchange, [job], keep_state=True)
        try:
            shown = [Shown(service.llm.tokenizer, job, writer) for writer in job.writers]
            await collect(service, exchange, run, Clock(), shown)
            await run.settle()
            led = run.tickets[0].context
            assert led is not None
            state = led.state
        finally:
            service.finish(exchange, run)
        exchange.tokens = (len(ids), run.tickets[0].cached_tokens or 0, 0)

    def commit() -> None:
        session.commit(role=role, ids=ids, state=state, pending=pending, text=_text(reading))

    await service.disk(lambda: refusals(commit))
    return len(ids)


def _text(reading: Reading) -> str | None:
    if reading.text is not None:
        return reading.text
    if reading.messages is not None:
        return "\n\n".join(f"{message.role}: {message.content}" for message in reading.messages)
    return None
