"""States that come with a request and go with its answer: a server that keeps nothing.

What comes is a state file (`griffin.sessions.state_file`): checked as one from a stranger is, and
nothing of it is ever unpickled. It becomes a session in memory, for as long as the request lasts.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from griffin.server import errors
from griffin.server.bridge import Run
from griffin.server.conversations.plan import SessionPlan, commit
from griffin.server.conversations.thread import Thread
from griffin.server.errors import ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.body import values
from griffin.server.protocol.bounds import check_most
from griffin.server.service import Service
from griffin.server.shelves import refusals
from griffin.sessions import Session, SessionInfo, Store, unpack_state


def import_data(
    service: Service, store: Store, data: bytes, param: str, name: str | None = None
) -> SessionInfo:
    """Begin a session of a state that a client sent.

    Raises ApiError for one that is torn, not finite, another model's, too long or too large.
    """
    limits = service.limits
    if len(data) > limits.max_state_bytes:
        flag = Limits.flag("max_state_bytes")
        raise ApiError(
            errors.TOO_LARGE,
            f"{param} is a state of {len(data)} bytes; this server accepts"
            f" {limits.max_state_bytes} (raise it with {flag})",
            param,
        )
    # Its header is JSON, and bounded as that of a body.
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    if len(header) > limits.max_body_bytes or values(header) > limits.max_json_values:
        message = f"{param} is a state whose header is too large for this server"
        raise ApiError(errors.TOO_LARGE, message, param)

    def do() -> SessionInfo:
        info, state = unpack_state(data, param, service.fingerprint)
        what = f"{param} has {len(info.turns)} turns"
        check_most(len(info.turns), what, limits, "max_messages", param)
        service.check_prompt(info.pending, param)
        return store.import_state(info, state, name)

    return refusals(do)


def session_in_memory(service: Service, data: bytes | None, kept: Session | None) -> Session:
    """Begin a session that is gone with its request: of a state's data, as a kept one, or empty."""
    store, mark = Store.in_memory(), service.fingerprint
    if data is not None:
        name = import_data(service, store, data, "state_data").name
    elif kept is not None:
        name = store.adopt(kept)
    else:
        return store.create(fingerprint=mark, config=service.llm.model.config)
    return store.open(name, mark)


class Carried(Thread):
    """An answer in a session in memory, whose state goes with it."""

    keeps = True

    def __init__(self, service: Service, session: Session, plan: SessionPlan) -> None:
        super().__init__(plan.context, plan.tools, begun=plan.place.rest.begun)
        self._service = service
        self._session = session
        self._plan = plan

    async def keep(self, run: Run, stats: dict[str, Any] | None = None) -> None:
        """Pack the state after the answer."""
        await run.settle()

        def do() -> str:
            commit(self._service, self._session, self._plan, run, stats=stats)
            return b64encode(self._session.exported()).decode()

        self.state_data = await self._service.disk(lambda: refusals(do))

    async def close(self) -> None:
        """Forget the session."""
        self._session.close()
