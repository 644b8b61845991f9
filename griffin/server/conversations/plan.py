"""Where a request goes on in a session, and how its answer is put there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from griffin.conversation import turns
from griffin.conversation.turns import Place
from griffin.engine import Context, Seen
from griffin.server import errors
from griffin.server.bridge import Run
from griffin.server.conversations.asked import Asked, settings_of, words_of
from griffin.server.protocol import Tool
from griffin.server.service import Service
from griffin.server.tool_text import told
from griffin.sessions import Item, Session, SessionError, Turn
from griffin.sessions.tree import line_to

T = TypeVar("T")


@dataclass(frozen=True)
class SessionPlan:
    """Where an answer begins in a session. settings: what the session has for its words then."""

    place: Place
    context: Context
    tools: Sequence[Tool]
    settings: dict[str, Any]


def plan_in(service: Service, session: Session, asked: Asked, own_words: bool) -> SessionPlan:
    """Find where a request goes on in a session.

    own_words: instructions and tools are this request's own, and all its messages are new, unless
               they are the whole conversation (`Asked.whole`).
               Otherwise what it leaves out of them is the session's, and messages that hold an
               answer are the whole conversation. One that only begins is the answer to come,
               unless the session's first exchange is just these messages.
    """
    chat = service.llm.chat_format
    tree, stored = session.tree(), session.turns()
    begun = any(turn.role == turns.EXCHANGE for turn in stored)
    new = own_words and not asked.whole
    system, talk = asked.said(first=not (new and begun), begun=begun and not asked.whole)
    own = session.settings
    unsaid = system is None and asked.tools is None and not own_words
    as_read = unsaid and begun and "system" not in own  # carried here by a state file, say
    if "system" in own:
        its_tools, its_system = [Tool(**tool) for tool in own.get("tools", ())], own["system"]
    else:
        its_tools, its_system = told(turns.words_of(chat, stored))
    system = its_system if system is None and not asked.whole else system
    tools = asked.tools if asked.tools is not None else () if own_words else its_tools
    words = words_of(tools, asked.instructions, system)
    before, begins = turns.parted(talk)
    if asked.whole or (
        not own_words
        and (
            any(role == "assistant" for role, _ in before)
            or (begins and turns.agreeing(tree, [*talk, ("user", "")], stored)[1])
        )
    ):
        at, count = turns.agreeing(tree, talk, stored)
        stored, talk = line_to(tree, _turn(tree, at)), talk[count:]
    elif not begun:
        stored = line_to(tree, _turn(tree, turns.base_of(tree, stored)))
    line = turns.following(chat, stored, talk, words, as_read=as_read)
    place = turns.find(chat, tree, line)
    service.check_prompt(place.rest.all_ids, asked.param)
    session.goto(place.turn, keep=False)
    started = time.perf_counter()
    context = session.resume()
    service.metrics.restore.observe(time.perf_counter() - started)
    settings = settings_of(system, its_tools if own_words else tools)
    return SessionPlan(
        place,
        marked(service, context.then(place.rest.all_ids), asked.penalty),
        tools,
        {} if as_read else settings,
    )


def commit(
    service: Service,
    session: Session,
    plan: SessionPlan,
    run: Run,
    *,
    choice: int = 0,
    stats: dict[str, Any] | None = None,
    reuse: bool = False,
    items: Sequence[Item] = (),
) -> Turn:
    """Keep an answer, and the turns before it that were read for it, where it was planned.

    reuse: if the very same turn is there already, go to that.
    items: what was said and answered, as clients know it.
    Raises ValueError for an answer without a token, or whose state was lost, and what
    `Session.commit` raises.
    """
    chat, writer, ticket = service.llm.chat_format, run.writers[choice], run.tickets[0]
    place, context = plan.place, ticket.contexts[choice]
    if context is None or not writer.events:
        raise ValueError("the answer left no state behind")
    done = turns.answered(chat, place.rest, writer.ids, writer.text)
    if reuse and not place.rest.before:
        for turn in session.tree():
            if turn.kept and turn.parent == place.turn and turn.ids == done.ids:
                session.goto(turn.number)
                return turn
    session.goto(place.turn, keep=False)
    return session.commit(
        role=done.role,
        ids=done.ids,
        text=done.text,
        before=place.rest.before,
        state=context.state,
        pending=[*context.pending[:-1], done.ids[-1]],
        settings={**session.settings, "model": service.name, **plan.settings},
        stats={
            "generated_tokens": len(writer.events),
            "seed": ticket.seeds[choice],
            "finish_reason": writer.finish_reason,
            **(stats or {}),
        },
        items=items,
    )


def _turn(tree: Sequence[Turn], number: int | None) -> Turn | None:
    return next((turn for turn in tree if turn.number == number), None)


def marked(service: Service, context: Context, penalty: bool) -> Context:
    """Return a context that knows which tokens were read, if a penalty asks; may read the disk."""
    if not penalty:
        return context
    return replace(context, seen=Seen(context.seen.marks(service.llm.model.config.vocab_size)))


def blaming(param: str, do: Callable[[], T]) -> T:
    """Do something with a conversation; what cannot be one becomes an ApiError."""
    try:
        return do()
    except SessionError:
        raise
    except ValueError as error:
        raise errors.of_value_error(error, param) from None
