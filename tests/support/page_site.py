"""A server without a model, for the page: sessions in memory, answers by what the message says.

Its requests go through the protocol's parsers and its answers through the protocol's builders, so
the page is tried against the shapes that the real server has.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.endpoints.chat.body import ChatRequest, parse_chat
from griffin.server.endpoints.chat.reply import ChatChunks
from griffin.server.endpoints.models.reply import ModelExtras, ModelList, ModelObject
from griffin.server.endpoints.server.reply import ServerObject, SlotCounts, limits_object
from griffin.server.endpoints.sessions.body import (
    parse_fork,
    parse_rewind,
    parse_search,
    parse_session_change,
    parse_session_create,
)
from griffin.server.endpoints.sessions.reply import (
    TurnList,
    session_list,
)
from griffin.server.errors import ApiError
from griffin.server.http import sse
from griffin.server.http.static import ChatPage
from griffin.server.limits import Limits
from tests.support.page_talk import STATE_BYTES, Talk

T = TypeVar("T")

LIMITS = Limits(vocab_size=1000)

RICH = """## What a state is

A Griffin model keeps **one state of fixed size**, *whatever* it has read. Each token changes it:

```python
def step(h, x, a):
    return a * h + (1 - a**2) ** 0.5 * x
```

1. read a token,
2. update the state,
   - the recurrent part,
   - the window,
3. predict.

| part | bytes at 2B | grows |
|:--|--:|:-:|
| recurrent | 460,800 | no |
| window | 16,777,216 | up to 2,048 tokens |

> It holds no more than that. See [the paper](https://arxiv.org/abs/2402.19427), or `griffin plan`.
"""
LONG = ("A state has a fixed size. It holds ", "the gist of all that was read.")
EVIL = (
    '<img src=x onerror="document.title=1"> ![x](http://elsewhere.test/x.png)'
    " [go](javascript:alert(1)) <script>document.title = 1</script>"
)


class Site:
    """The server. `keep` False has it keep no sessions; `key` is asked for if set.

    prefix: it is there alone, as behind a proxy that serves others, too.
    talks: by name. bodies: of all chat requests. one_turn: a message and its answer are one turn.
    """

    def __init__(self, *, keep: bool = True, one_turn: bool = False, prefix: str = "") -> None:
        self.keep = keep
        self.prefix = prefix
        self.key: str | None = None
        self.one_turn = one_turn
        self.talks: dict[str, Talk] = {}
        self.bodies: list[ChatRequest] = []
        self._server: uvicorn.Server | None = None
        self.url = ""

    def start(self) -> None:
        """Serve on a free port of this machine."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}{self.prefix}"
        config = uvicorn.Config(
            self.app(), log_level="error", lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        assert self._server is not None
        self._server.should_exit = True
        self._thread.join(60)

    def app(self) -> ASGIApp:
        one, name = "/v1/sessions", "/v1/sessions/{name}"
        kept = [
            (one, "GET", self._list),
            (one, "POST", self._create),
            (name, "GET", self._show),
            (name, "PATCH", self._change),
            (name, "DELETE", self._delete),
            (f"{name}/turns", "GET", self._turns),
            (f"{name}/fork", "POST", self._fork),
            (f"{name}/rewind", "POST", self._rewind),
        ]
        always = [
            ("/v1/models", "GET", self._models),
            ("/v1/server", "GET", self._about),
            ("/v1/chat/completions", "POST", self._chat),
        ]
        routes = [
            Route(path, self._guarded(do), methods=[method])
            for path, method, do in (always + kept if self.keep else always)
        ]
        own = Starlette(routes=[*routes, Mount("/", ChatPage())])

        async def behind(scope: Scope, receive: Receive, send: Send) -> None:
            """Do what a proxy does: take the prefix away; there is nothing without it."""
            path = scope["path"]
            inner = path.removeprefix(self.prefix) if path.startswith(self.prefix) else "/nothing"
            await own({**scope, "path": inner, "raw_path": inner.encode()}, receive, send)

        return behind if self.prefix else own

    def _guarded(
        self, do: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            try:
                given = request.headers.get("authorization")
                if self.key is not None and given != f"Bearer {self.key}":
                    raise ApiError(
                        errors.BAD_KEY,
                        "a wrong API key was sent" if given else "no API key was sent",
                    )
                return await do(request)
            except ApiError as error:
                return Response(error.body(), error.status, error.headers)

        return guarded

    def _talk(self, request: Request) -> Talk:
        name = p.check_name(request.path_params["name"], "name")
        if name not in self.talks:
            raise ApiError(errors.NO_STATE, f"there is no session {name!r}")
        return self.talks[name]

    def _new(self, title: str | None) -> Talk:
        talk = Talk(p.new_id("s")[:12], title or "")
        self.talks[talk.id] = talk
        return talk

    async def _models(self, request: Request) -> Response:
        extras = ModelExtras(
            parameters=2_680_000_000,
            weights="int8",
            state_bytes=STATE_BYTES,
            window=2048,
            chat=True,
            caution="",
            sampling={"temperature": 0.7, "max_tokens": 4096},
        )
        return _json(
            ModelList(
                data=[ModelObject(id="toy-2b-it", created=1, root="toy-2b-it", griffin=extras)]
            )
        )

    async def _about(self, request: Request) -> Response:
        return _json(
            ServerObject(
                version="0.1.0",
                model="toy-2b-it",
                system_fingerprint=p.fingerprint("toy"),
                slots=SlotCounts(total=8, busy=0),
                waiting=0,
                running=0,
                paused=0,
                bytes={"weights": 2_700_000_000},
                uptime_seconds=1.0,
                limits=limits_object(LIMITS),
            )
        )

    async def _list(self, request: Request) -> Response:
        page, words = p.parse_page(request.query_params), parse_search(request.query_params)
        talks = sorted(self.talks.values(), key=lambda talk: -talk.last_used)
        talks = [talk for talk in talks if talk.has(words)]
        names = [talk.id for talk in talks]
        first = names.index(page.after) + 1 if page.after else 0
        found = [talk.object() for talk in talks[first : first + page.limit]]
        return _json(session_list(found, len(talks) > first + page.limit))

    async def _create(self, request: Request) -> Response:
        asked, _ = parse_session_create(await request.body(), LIMITS)
        return _json(self._new(asked.title).object())

    async def _show(self, request: Request) -> Response:
        return _json(self._talk(request).object())

    async def _change(self, request: Request) -> Response:
        talk = self._talk(request)
        asked, _ = parse_session_change(await request.body(), LIMITS)
        talk.title = asked.title or talk.title
        return _json(talk.object())

    async def _delete(self, request: Request) -> Response:
        talk = self.talks.pop(self._talk(request).id)
        return _json(p.Deleted(id=talk.id, object="session.deleted"))

    async def _turns(self, request: Request) -> Response:
        talk = self._talk(request)
        current = {turn.id for turn in talk.path()}
        for turn in talk.turns:
            turn.current = turn.id in current
        return _json(TurnList(data=talk.turns))

    async def _fork(self, request: Request) -> Response:
        talk = self._talk(request)
        asked, _ = parse_fork(await request.body(), LIMITS)
        self._check_turn(talk, asked.at)
        made = self._new(asked.title or talk.title)
        made.parent = talk.id
        here, talk.head = talk.head, asked.at or talk.head
        for turn in talk.path():
            made.add(turn.role, turn.text or "", turn.finish_reason)
        talk.head, made.system = here, talk.system
        return _json(made.object())

    async def _rewind(self, request: Request) -> Response:
        talk = self._talk(request)
        asked, _ = parse_rewind(await request.body(), LIMITS)
        self._check_turn(talk, asked.to)
        if asked.to is not None:
            talk.head = asked.to
        for _ in range(asked.turns or 0):
            if talk.head is None:
                raise ApiError(errors.NO_TURN, "there are not so many turns", "turns")
            talk.head = talk.turns[talk.head - 1].parent
        return _json(talk.object())

    def _check_turn(self, talk: Talk, turn: int | None) -> None:
        if turn is not None and turn > len(talk.turns):
            raise ApiError(errors.NO_TURN, f"there is no turn {turn}")

    async def _chat(self, request: Request) -> Response:
        asked = parse_chat(await request.body(), LIMITS)
        self.bodies.append(asked)
        who = asked.identity(request.headers)
        if who.kind == "session" and who.value not in self.talks:
            raise ApiError(errors.NO_STATE, f"there is no session {who.value!r}")
        talk = self.talks[who.value] if who.kind == "session" else None
        system, *said = (
            asked.messages if asked.messages[0].role == "system" else (None, *asked.messages)
        )
        begun = said.pop().content if said[-1].role == "assistant" else ""
        text = said[-1].content
        if talk is not None and system is not None:
            talk.system = system.content or None
        if text == "refuse":
            raise ApiError(errors.QUEUE_FULL, "8 requests wait already", retry_after=3)
        return StreamingResponse(self._events(asked, talk, text, begun), headers=sse.HEADERS)

    async def _events(
        self, asked: ChatRequest, talk: Talk | None, text: str, begun: str
    ) -> AsyncIterator[bytes]:
        chunks = ChatChunks(
            p.Head.new("chatcmpl-", "toy-2b-it", p.fingerprint("toy")), asked.include_usage
        )
        before = talk.object().tokens if talk is not None else 0
        given, ended = "", False
        if talk is not None:
            talk.busy = True
        try:
            yield sse.KEEPALIVE
            yield sse.data(chunks.role())
            if text == "never":
                await asyncio.sleep(30)
            for number, piece in enumerate(
                pieces_of(text, len(talk.path()) if talk else len(asked.messages), begun)
            ):
                if text == "break" and number == 3:
                    ended = True  # and nothing is kept
                    given = ""
                    yield sse.error(errors.bug("req_1"))
                    return
                await asyncio.sleep(0.02 if text == "slow" else 0)
                given += piece
                yield sse.data(chunks.text(piece))
            ended = True
            finish = "length" if text == "long" and not begun else "stop"
            self._keep(talk, text, begun, given, finish)
            yield sse.data(chunks.finish(finish))
            read = len(text.split()) + 4
            if asked.include_usage:
                used = p.usage(before + read, len(given.split()), before)
                yield sse.data(
                    chunks.usage(used, p.Extras(state_bytes=STATE_BYTES, tokens_per_second=41.5))
                )
            yield sse.DONE
        finally:
            if talk is not None:
                talk.busy = False
            if not ended and given:  # the client left: what was said until then stays said
                self._keep(talk, text, begun, given, "cancelled")

    def _keep(self, talk: Talk | None, text: str, begun: str, answer: str, finish: str) -> None:
        if talk is None:
            return
        if begun:  # beside the exchange that was cut
            for _ in range(1 if self.one_turn else 2):
                assert talk.head is not None
                talk.head = talk.turns[talk.head - 1].parent
        answer = begun + answer
        if self.one_turn:
            quoted = "\n".join(f"> {line}" for line in text.split("\n"))
            talk.add("exchange", f"{quoted}\n\n{answer}", finish)
        else:
            talk.add("user", text)
            talk.add("assistant", answer, finish)


def pieces_of(text: str, before: int, begun: str = "") -> list[str]:
    """Return the answer to a message, in pieces.

    before: turns that came before it. begun: what there is of it.
    """
    answers = {
        "long": LONG[bool(begun)],
        "nothing": "",
        "rich": RICH,
        "slow": "word " * 400,
        "evil": EVIL,
    }
    answer = answers.get(text, f"You said **{text}** after {before} turns.")
    return [answer[at : at + 5] for at in range(0, len(answer), 5)]


def _json(value: Any) -> Response:
    return Response(p.encode(value), media_type="application/json")
