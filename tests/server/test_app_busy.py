"""Sessions that are in use: who waits, who is told, and that each is given back."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import openai
import pytest

from griffin.conversation import split_exchange
from griffin.server import conversations, shelves
from griffin.server import protocol as p
from griffin.server.conversations import entry, opening
from griffin.server.settings import Settings
from griffin.sessions import SessionBusy, UnknownSession
from tests.support.live_server import NAME, endless, serving
from tests.support.session_talk import say
from tests.support.waiting import until


def test_a_session_answers_one_at_a_time(live, llm):
    client = live.openai()
    busy = client.chat.completions.create(
        model=NAME,
        messages=[{"role": "user", "content": "x"}],
        max_tokens=20_000,
        stream=True,
        extra_body={"session_id": "busy"},
        **endless(llm),
    )
    next(iter(busy))
    with live.http() as http:
        assert http.get("/v1/sessions/busy").json()["busy"] is True
    # Others wait, without a slot, in the order in which they came.
    with ThreadPoolExecutor(3) as pool, live.http() as http:
        waiting = []
        for number, ask in enumerate(
            (
                partial(say, live, "y", session="busy"),
                partial(http.post, "/v1/sessions/busy/rewind", json={"turns": 1}),
                partial(say, live, "z", session="busy"),
            )
        ):
            waiting.append(pool.submit(ask))
            until(lambda n=number: live.service.holding._held["", "busy"].users == n + 2)
        assert live.service.engine.stats().busy == 1 and not any(w.done() for w in waiting)
        busy.close()
        (first, _), rewound, (last, _) = [one.result(30) for one in waiting]
    assert rewound.status_code == 200
    with live.http() as http:
        turns = http.get("/v1/sessions/busy/turns").json()["data"]
    # What was said when the client stopped listening stays said.
    assert [turn["parent"] for turn in turns] == [None, 1, 1]
    assert [split_exchange(t["text"]) for t in turns[1:]] == [("y", first), ("z", last)]
    assert not live.service.holding._held


@pytest.mark.parametrize("way", ["rewind", "fork", "rename", "delete"])
def test_what_changes_a_session_waits_for_its_answer(live, llm, way):
    name = f"busy-{way}"
    asked = {
        "rewind": ("POST", "/rewind", {"turns": 1}),
        "fork": ("POST", "/fork", {}),
        "rename": ("PATCH", "", {"name": f"{name}-then"}),
        "delete": ("DELETE", "", None),
    }
    method, path, body = asked[way]
    busy = live.openai().chat.completions.create(
        model=NAME,
        messages=[{"role": "user", "content": "x"}],
        max_tokens=20_000,
        stream=True,
        extra_body={"session_id": name},
        **endless(llm),
    )
    next(iter(busy))
    with ThreadPoolExecutor(1) as pool, live.http() as http:
        reply = pool.submit(http.request, method, f"/v1/sessions/{name}{path}", json=body)
        until(lambda: live.service.holding._held["", name].users == 2)
        assert not reply.done()
        busy.close()
        assert reply.result(30).status_code == 200
        gone = http.get(f"/v1/sessions/{name}").status_code == 404
    assert gone == (way in ("rename", "delete"))


def test_who_waits_too_long_for_a_session_is_told(llm, folder):
    settings = Settings(deadline_seconds=0.3)
    with serving(llm, folder.parent / "waiting", settings=settings) as live:
        held = live.service.holding.hold
        exchange = SimpleNamespace(gone=False, on_gone=lambda call: None)

        async def holding():
            async with held(exchange, ("", "long"), 1):
                return await asyncio.to_thread(say_and_fail)

        def say_and_fail():
            with pytest.raises(openai.APIStatusError) as caught:
                say(live, "x", session="long")
            return caught.value

        error = asyncio.run_coroutine_threadsafe(holding(), live.service.bridge._loop).result(30)
        assert error.status_code == 504 and "whole time" in error.message


def test_two_that_begin_a_session_at_once(live, monkeypatch):
    """The slower one is told that the other has it."""
    service, store = live.service, live.service.store.within("twice")
    open_, others = store.open, []

    def late(name, fingerprint):
        if not others:
            others.append(opening.open_session(service, service.store.within("twice"), name))
            raise UnknownSession("not yet")
        return open_(name, fingerprint)

    monkeypatch.setattr(store, "open", late)
    with pytest.raises(SessionBusy):
        opening.open_session(service, store, "new")
    others[0].close()
    opening.open_session(service, store, "new").close()


def left(make, begun, end):
    """Begin something, cancel it when it has begun, and only then let it end."""

    async def main():
        task = asyncio.create_task(make())
        assert await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        end.set()

    asyncio.run(main())


def slowly(do, begun, end, made):
    """Return something that does the same, and waits before it returns."""

    def slow(*given, **more):
        made.append(do(*given, **more))
        begun.set()
        end.wait(60)
        return made[-1]

    return slow


@pytest.mark.parametrize("way", ["chat", "block", "response"])
def test_a_session_that_nobody_waits_for_is_given_back(live, monkeypatch, way):
    service, name, made = live.service, f"left-{way}", []
    begun, end = threading.Event(), threading.Event()
    exchange = SimpleNamespace(
        namespace="", gone=False, on_gone=lambda call: None, read_at=time.perf_counter()
    )
    said = conversations.Asked(messages=[p.Message("user", "x")], tools=None)
    slow = slowly(opening.open_session, begun, end, made)
    store = service.store

    async def chat():
        identity = p.Identity("session", name, "session_id")
        await conversations.take_up(service, exchange, identity, said)

    async def block():
        open_ = partial(slow, service, store, name)
        async with shelves.opened(service, exchange, store, name, open_):
            pass

    async def response():
        identity = p.Identity("none")
        await conversations.take_up(service, exchange, identity, said, response=name)

    if way == "response":
        store = store.within("responses")
        monkeypatch.setattr(entry, "plan_in", slowly(entry.plan_in, begun, end, made))
        left(response, begun, end)
        until(lambda: name not in {info.name for info in store.list()})
    else:
        monkeypatch.setattr(entry, "open_session", slow)
        left(chat if way == "chat" else block, begun, end)
        until(lambda: not store.busy(name))
    assert not service.holding._held
