"""What one answer follows, and who keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from griffin.conversation import turns
from griffin.conversation.turns import Transcript
from griffin.engine import Context
from griffin.server.bridge import Run
from griffin.server.conversations.opening import open_session
from griffin.server.conversations.plan import SessionPlan, commit
from griffin.server.logs import where
from griffin.server.protocol import Tool
from griffin.server.protocol.items import PlainItem
from griffin.server.service import Service, log
from griffin.server.shelves import refusals
from griffin.sessions import Item, Session, SessionError, StateMismatch, Store, Turn


class Thread:
    """What one answer follows, and who keeps it: nobody, here.

    context: where the answer begins. tools: that it may call. name: of the session that it is in.
    begun:   its first words, which the request gave.
    keeps:   the answer's state is wanted. state_data: that state, if it goes with the answer.
    """

    keeps = False

    def __init__(
        self,
        context: Context,
        tools: Sequence[Tool] = (),
        name: str | None = None,
        begun: str = "",
    ) -> None:
        self.context = context
        self.begun = begun
        self.state_data: str | None = None
        self.tools = tools
        self.name = name

    @property
    def prompt(self) -> Sequence[int] | None:
        """Every id before the answer; None where some are in a state, which keeps no ids."""
        return self.context.pending if self.context.state is None else None

    async def keep(self, run: Run, stats: dict[str, Any] | None = None) -> None:
        """Put the finished answer where it is kept; ApiError if it cannot be."""

    async def rescue(self, run: Run) -> None:
        """Keep what was said of an answer that was cut short: the client has it on its screen."""

    async def close(self) -> None:
        """Let go of what the answer went on from."""


class Held(Thread):
    """An answer in a session that the request names, which nobody else has meanwhile.

    response: namespace and id under which the answer can be gone on from later, too, in a fork.
    becomes:  the name that the session gets with the answer.
    given:    what was asked, as it is kept beside the answer's items.
    listed:   the session is a conversation, and holds the items of all its answers.
    """

    keeps = True

    def __init__(
        self,
        service: Service,
        session: Session,
        plan: SessionPlan,
        *,
        name: str | None = None,
        response: tuple[str, str] | None = None,
        becomes: str | None = None,
        given: Sequence[PlainItem] = (),
        listed: bool = False,
        keeps: bool = True,
    ) -> None:
        super().__init__(plan.context, plan.tools, name, plan.place.rest.begun)
        self.session = session
        self.turn: Turn | None = None
        self.held = AsyncExitStack()  # what is let go of at the end
        self.keeps = keeps
        self._service = service
        self._plan = plan
        self._response = response
        self._becomes = becomes
        self._given = given
        self._listed = listed
        self._tried = False

    async def keep(self, run: Run, stats: dict[str, Any] | None = None) -> None:
        """Put the finished answer on the disk, if it is to be kept; ApiError if it cannot be."""
        self._tried = True
        if not self.keeps:
            return
        await run.settle()
        await self._service.disk(lambda: refusals(partial(self._commit, run, stats or {})))

    async def rescue(self, run: Run) -> None:
        """Keep what was said of an answer that was cut short."""
        if self._tried or self.name is None or self._listed:  # a response that failed is none
            return
        self._tried = True
        await run.settle()
        if run.writers[0].events:
            try:
                await self._service.disk(lambda: self._commit(run, {"cut_short": True}))
            except (SessionError, OSError, ValueError) as error:
                log.error("an answer that was cut short could not be kept: %s", where(error))

    async def close(self) -> None:
        """Give the session back."""
        self.session.close()
        await self.held.aclose()

    def _commit(self, run: Run, stats: dict[str, Any]) -> None:
        output = stats.get("response", {}).get("output", [])
        items = [Item("input", item) for item in self._given if output]
        items += [Item("output", item) for item in output]
        own = items if self._listed or self._becomes is not None else []
        if self._response is None and self._becomes is None:  # it is not to be kept as a response
            stats = {name: value for name, value in stats.items() if name != "response"}
        self.turn = commit(self._service, self.session, self._plan, run, stats=stats, items=own)
        if self._becomes is not None:
            self.session.update(name=self._becomes)
        if self._response is not None:
            namespace, id = self._response
            self.session.fork(id, namespace=namespace, items=items)


class Hinted(Thread):
    """An answer to a whole conversation, which a session that was hinted at may know in part.

    The session makes no difference to the answer, so nothing that happens to it is a refusal.
    """

    keeps = True

    def __init__(
        self,
        service: Service,
        store: Store,
        name: str,
        line: Transcript,
        plan: SessionPlan,
    ) -> None:
        super().__init__(plan.context, plan.tools, name, line.begun)
        self._service = service
        self._store = store
        self._line = line
        self._plan = plan
        self._tried = False

    @property
    def prompt(self) -> Sequence[int]:
        """Every id before the answer."""
        return self._line.all_ids

    async def keep(self, run: Run, stats: dict[str, Any] | None = None) -> None:
        """Put the finished answers into the session, as branches."""
        if not self._tried:
            self._tried = True
            await run.settle()
            await self._service.disk(lambda: self._quietly(run))

    async def rescue(self, run: Run) -> None:
        """Keep what was said of an answer that was cut short."""
        await self.keep(run)

    def _quietly(self, run: Run) -> None:
        assert self.name is not None
        chat = self._service.llm.chat_format
        try:
            with (
                self._service.holding.moment((self._store.namespace, self.name)),
                open_session(self._service, self._store, self.name) as session,
            ):
                for choice, writer in enumerate(run.writers):
                    if writer.events:
                        # Where it was found may be gone, and others may have added to it.
                        place = turns.find(chat, session.tree(), self._line)
                        plan = replace(self._plan, place=place)
                        commit(self._service, session, plan, run, choice=choice, reuse=True)
        except StateMismatch:  # it is another model's, whose turns mean nothing here
            pass
        except (SessionError, OSError, ValueError) as error:
            log.warning("the session of a hint could not be kept: %s", where(error))
