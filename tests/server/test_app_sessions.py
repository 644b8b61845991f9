"""Sessions, states and responses over HTTP: each answer the one that a conversation in memory
gives."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import openai
import pytest

from griffin.conversation import Conversation, fingerprint_of, split_exchange
from griffin.server import conversations, errors, shelves
from griffin.server import protocol as p
from griffin.server.conversations import entry
from griffin.server.endpoints.states import route as states
from griffin.server.errors import ApiError
from griffin.server.settings import Settings
from griffin.sessions import SessionBusy, Store, UnknownSession
from tests.support.live_server import NAME, endless, serving
from tests.support.waiting import until


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kept") / "store"


@pytest.fixture(scope="module")
def live(llm, folder):
    with serving(llm, folder) as live:
        yield live


@pytest.fixture
def http(live):
    with live.http() as http:
        yield http


def say(live, content, *, session=None, before=(), **fields):
    """Say something; return the answer's text and the x-griffin-state header."""
    extra = {} if session is None else {"session_id": session}
    raw = live.openai().chat.completions.with_raw_response.create(
        model=NAME,
        messages=[*before, {"role": "user", "content": content}],
        extra_body=extra,
        **{"max_tokens": 6, "seed": 1} | fields,
    )
    return raw.parse().choices[0].message.content, raw.headers["x-griffin-state"]


def talk(llm, *messages, max_tokens=6):
    """Return what a conversation in memory answers."""
    from griffin.conversation import begin

    conversation = Conversation(
        llm, begin(llm, None), sampling={"max_tokens": max_tokens, "seed": 1}
    )
    return ["".join(conversation.say(message)) for message in messages]


def both(said, answers):
    roles = ("user", "assistant")
    pairs = zip(said, answers, strict=True)
    return [
        {"role": r, "content": text} for pair in pairs for r, text in zip(roles, pair, strict=True)
    ]


def test_a_session_goes_on(live, llm, http):
    said = ["one", "two", "three"]
    answers = talk(llm, *said)
    first = [say(live, message, session="goes-on") for message in said]
    assert [text for text, _ in first] == answers
    assert first[0][1] == "none; cached=0" and first[2][1].startswith("session; cached=")
    shown = http.get("/v1/sessions/goes-on").json()
    assert (shown["turns"], shown["head"], shown["busy"]) == (3, 3, False)
    turns = http.get("/v1/sessions/goes-on/turns").json()["data"]
    assert [turn["text"] for turn in turns] == [
        f"> {u}\n\n{a}" for u, a in zip(said, answers, strict=True)
    ]


def test_a_client_that_sends_everything_goes_on_too(live, llm, http):
    answers = talk(llm, "one", "two")
    whole = both(["one"], answers[:1])
    assert say(live, "one", session="whole")[0] == answers[0]
    text, state = say(live, "two", session="whole", before=whole)
    assert text == answers[1] and state.startswith("session; cached=")
    # An edited message: the turn before it is where it goes on, and the old one stays a branch.
    text, state = say(live, "other", session="whole", before=whole)
    assert text == talk(llm, "one", "other")[1] and state.startswith("session;")
    turns = http.get("/v1/sessions/whole/turns").json()["data"]
    assert [(turn["parent"], turn["current"]) for turn in turns] == [
        (None, True),
        (1, False),
        (1, True),
    ]
    # Words that the session does not know are read from the beginning.
    text, state = say(live, "x", session="whole", before=both(["never"], ["said"]))
    assert state.startswith(("none", "prefix"))


def test_a_program_that_names_its_chats(live, llm):
    """open-webui sends everything each time, and a header. What the session knows spares reading
    where the answer's ids are those that its text is encoded to, and changes nothing."""
    spared = 0
    for seed in range(40):
        headers = {"x-openwebui-chat-id": f"chat-{seed}"}
        first, state = say(live, "one", extra_headers=headers, seed=seed)
        assert not state.startswith("session;")
        before = both(["one"], [first])
        plainly, _ = say(live, "two", before=before, seed=1)
        second, state = say(live, "two", before=before, extra_headers=headers, seed=1)
        assert second == plainly
        again, state_again = say(live, "one", extra_headers=headers, seed=seed)
        assert again == first and not state_again.startswith("session;")
        spared += state.startswith("session;")
    assert 0 < spared < 40


@pytest.mark.parametrize("why", ["long", "full"])
def test_a_request_that_is_refused_moves_nothing(live, llm, http, monkeypatch, why):
    """It would have gone on from an earlier turn."""
    name, answers = f"stays-{why}", talk(llm, "one", "two", "three")
    for message in ("one", "two"):
        say(live, message, session=name)

    def full(*given, **more):
        raise ApiError(errors.QUEUE_FULL, "come back later", retry_after=1.0)

    with monkeypatch.context() as patch:
        if why == "full":
            patch.setattr(live.service, "start", full)
        else:
            short = dataclasses.replace(live.service.limits, max_prompt_tokens=1)
            patch.setattr(live.service, "limits", short)
        with pytest.raises(openai.APIStatusError) as caught:
            say(live, "other", session=name, before=both(["one"], answers[:1]))
        assert caught.value.status_code == (429 if why == "full" else 400)
    assert http.get(f"/v1/sessions/{name}").json()["head"] == 2
    assert say(live, "three", session=name)[0] == answers[2]


def test_undo_is_never_having_said_it(live, llm, http):
    for message in ("one", "two"):
        say(live, message, session="undo")
    back = http.post("/v1/sessions/undo/rewind", json={"turns": 1}).json()
    assert back["head"] == 1
    assert say(live, "three", session="undo")[0] == talk(llm, "one", "three")[1]
    assert http.post("/v1/sessions/undo/rewind", json={"to": 2}).json()["head"] == 2
    assert http.post("/v1/sessions/undo/rewind", json={"to": 99}).status_code == 404
    forked = http.post(
        "/v1/sessions/undo/fork", json={"name": "undo2", "at": 1, "title": "T"}
    ).json()
    assert (forked["id"], forked["turns"], forked["title"], forked["parent"]) == (
        "undo2",
        1,
        "T",
        "undo",
    )
    assert say(live, "three", session="undo2")[0] == talk(llm, "one", "three")[1]


def test_sessions_are_listed_renamed_deleted(live, http):
    made = [
        http.post("/v1/sessions", json={"name": f"list-{n}", "title": str(n)}).json()
        for n in range(3)
    ]
    assert made[0]["head"] is None and made[0]["tokens"] == 0
    page = http.get("/v1/sessions", params={"limit": 2}).json()
    assert len(page["data"]) == 2 and page["has_more"]
    rest = http.get("/v1/sessions", params={"limit": 100, "after": page["last_id"]}).json()
    assert not {s["id"] for s in rest["data"]} & {s["id"] for s in page["data"]}
    assert (
        http.post("/v1/sessions", json={"name": "list-0"}).json()["error"]["code"]
        == "session_exists"
    )
    renamed = http.patch("/v1/sessions/list-0", json={"name": "list-9", "title": "new"}).json()
    assert (renamed["id"], renamed["title"]) == ("list-9", "new")
    assert http.delete("/v1/sessions/list-9").json() == {
        "id": "list-9",
        "object": "session.deleted",
        "deleted": True,
    }
    gone = http.get("/v1/sessions/list-9")
    assert gone.status_code == 404 and gone.json()["error"]["code"] == "state_not_found"


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
        assert http.delete("/v1/sessions/busy").json()["error"]["code"] == "session_busy"
    # Others wait, without a slot, in the order in which they came.
    with ThreadPoolExecutor(2) as pool:
        waiting = []
        for number, message in enumerate(("y", "z")):
            waiting.append(pool.submit(say, live, message, session="busy"))
            until(lambda n=number: live.service.holding._held["", "busy"].users == n + 2)
        assert live.service.engine.stats().busy == 1 and not any(w.done() for w in waiting)
        busy.close()
        said = [one.result(30)[0] for one in waiting]
    with live.http() as http:
        turns = http.get("/v1/sessions/busy/turns").json()["data"]
    # What was said when the client stopped listening stays said.
    assert [turn["parent"] for turn in turns] == [None, 1, 2]
    assert [split_exchange(t["text"]) for t in turns[1:]] == [("y", said[0]), ("z", said[1])]
    assert not live.service.holding._held


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
            others.append(shelves.open_session(service, service.store.within("twice"), name))
            raise UnknownSession("not yet")
        return open_(name, fingerprint)

    monkeypatch.setattr(store, "open", late)
    with pytest.raises(SessionBusy):
        shelves.open_session(service, store, "new")
    others[0].close()
    shelves.open_session(service, store, "new").close()


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
    slow = slowly(shelves.open_session, begun, end, made)
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


def test_what_answers_went_on_from_is_counted(live):
    def hits(source):
        found = {"source": source}
        return (
            live.service.metrics.registry.get_sample_value("griffin_state_hits_total", found) or 0
        )

    def count():
        return hits("session"), sum(map(hits, ("session", "prefix", "none")))

    sessions, all_ = count()
    say(live, "one", session="counted")
    say(live, "two", session="counted")
    assert count() == (sessions + 1, all_ + 2)
    live.openai().completions.create(model=NAME, prompt="x", max_tokens=2)
    live.openai().responses.create(model=NAME, input="x", max_output_tokens=2)
    assert count() == (sessions + 1, all_ + 4)


def test_append_and_saved_states(live, llm, http):
    done = http.post(
        "/v1/states", json={"name": "rules", "text": "class Rules: pass\n", "title": "R"}
    ).json()
    assert done["tokens"] == len(llm.tokenizer.encode("class Rules: pass\n"))
    assert http.post("/v1/states", json={"name": "rules", "text": "x"}).status_code == 409
    raw = live.openai().chat.completions.with_raw_response.create(
        model=NAME,
        messages=[{"role": "user", "content": "one"}],
        max_tokens=6,
        seed=1,
        extra_body={"state": "rules"},
    )
    ids = [
        *llm.tokenizer.encode("class Rules: pass\n"),
        *llm.chat_format.ids([{"role": "user", "content": "one"}])[1:],
    ]
    alone = llm.generate(ids, seed=1, max_tokens=6)
    assert raw.parse().choices[0].message.content == alone.text
    assert raw.headers["x-griffin-state"] == f"session; cached={done['tokens'] - 1}"
    # A session that begins from it, and one that reads the same by itself.
    forked = http.post("/v1/states/rules/fork", json={"name": "from-rules"}).json()
    assert forked["tokens"] == done["tokens"]
    assert say(live, "one", session="from-rules")[0] == alone.text
    http.post("/v1/sessions", json={"name": "reads"})
    read = http.post("/v1/sessions/reads/append", json={"text": "class Rules: pass\n"}).json()
    assert read["tokens_read"] == read["tokens_seen"] == done["tokens"]
    http.post("/v1/states", json={"name": "copy", "session": "reads"})
    assert {s["id"] for s in http.get("/v1/states").json()["data"]} >= {"rules", "copy"}
    assert http.delete("/v1/states/rules").json()["object"] == "state.deleted"
    assert http.get("/v1/states/rules").status_code == 404
    assert say(live, "two", session="from-rules")[1].startswith("session;")


def test_a_state_of_a_turn(live, llm, http):
    for message in ("one", "two"):
        say(live, message, session="stages")
    turns = http.get("/v1/sessions/stages/turns").json()["data"]
    saved = http.post("/v1/states", json={"name": "stage-1", "session": "stages", "at": 1}).json()
    assert saved["tokens"] == turns[0]["tokens"] < turns[1]["tokens"]
    unknown = http.post("/v1/states", json={"name": "stage-9", "session": "stages", "at": 9})
    assert unknown.status_code == 404 and live.service.store.check() == ()


def test_a_state_is_in_no_list_until_it_is_whole(live, http, monkeypatch):
    seen, store = [], live.service.store
    before = [info.name for info in store.within("states").list()]
    sessions = store.usage().sessions

    async def half(service, exchange, session, reading, **more):
        seen.append(([info.name for info in store.within("states").list()], session.name))
        raise ApiError(errors.QUEUE_FULL, "come back later")

    monkeypatch.setattr(states, "read_into", half)
    assert http.post("/v1/states", json={"name": "half", "text": "x"}).status_code == 429
    [(listed, name)] = seen
    assert listed == before and store.usage().sessions == sessions
    assert http.get(f"/v1/states/{name}").status_code == 400  # no client's name can be one of these


def test_responses(live, llm):
    client = live.openai()
    said = ["one", "two"]
    answers = talk(llm, *said)
    fields = {"model": NAME, "max_output_tokens": 6, "extra_body": {"seed": 1}}
    first = client.responses.create(input="one", **fields)
    assert first.output_text == answers[0] and first.status == "incomplete"
    second = client.responses.create(input="two", previous_response_id=first.id, **fields)
    assert second.output_text == answers[1] and second.usage.input_tokens_details.cached_tokens > 0
    other = client.responses.create(input="other", previous_response_id=first.id, **fields)
    assert other.output_text == talk(llm, "one", "other")[1]
    assert client.responses.retrieve(second.id).output_text == answers[1]
    events = list(
        client.responses.create(input="two", previous_response_id=first.id, stream=True, **fields)
    )
    assert events[0].type == "response.created" and events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == answers[1]
    assert client.responses.retrieve(events[-1].response.id).output_text == answers[1]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(input="x", previous_response_id=first.id, **fields)
    assert client.responses.create(input="x", previous_response_id=second.id, **fields).status
    unkept = client.responses.create(input="one", store=False, **fields)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unkept.id)


@pytest.mark.parametrize("stream", [True, False])
def test_a_response_that_goes_on_and_is_not_kept(live, llm, stream):
    client = live.openai()
    fields = {"model": NAME, "max_output_tokens": 6, "extra_body": {"seed": 1}}
    first = client.responses.create(input="one", **fields)
    after = {"previous_response_id": first.id, "store": False, "stream": stream}
    second = client.responses.create(input="two", **after, **fields)
    if stream:
        second = list(second)[-1].response
    assert second.output_text == talk(llm, "one", "two")[1]
    until(
        lambda: (
            second.id not in {info.name for info in live.service.store.within("responses").list()}
        )
    )
    assert client.responses.retrieve(first.id).id == first.id


def test_a_conversation_of_responses(live, llm):
    client = live.openai()
    fields = {
        "model": NAME,
        "max_output_tokens": 6,
        "extra_body": {"seed": 1},
        "conversation": "talk",
    }
    answers = [client.responses.create(input=said, **fields).output_text for said in ("one", "two")]
    assert answers == talk(llm, "one", "two")


def test_another_process_and_the_terminal_go_on(live, llm, folder, tmp_path):
    """What a server kept, another one on the same folder goes on with; and so does `griffin
    chat`."""
    answers = talk(llm, "one", "two", "three")
    assert say(live, "one", session="moves")[0] == answers[0]
    with serving(llm, folder) as other:
        assert say(other, "two", session="moves")[0] == answers[1]
    with Store(folder).open("moves", fingerprint_of(llm)) as session:
        conversation = Conversation(llm, session, sampling={"max_tokens": 6, "seed": 1})
        assert "".join(conversation.say("three")) == answers[2]


def test_a_server_without_a_store(llm):
    with serving(llm) as live:
        with pytest.raises(openai.BadRequestError) as caught:
            say(live, "x", session="s")
        assert caught.value.code == "unsupported_parameter" and "--store" in str(caught.value)
        assert say(live, "x", extra_headers={"x-openwebui-chat-id": "c"})[0]
        assert live.openai().responses.create(model=NAME, input="x", max_output_tokens=2).output
        with live.http() as http:
            assert http.get("/v1/sessions").status_code == 400


def test_many_sessions_at_once(live, llm):
    """Eight conversations side by side, each the one it is alone."""
    expected = {n: talk(llm, f"a{n}", f"b{n}", f"c{n}") for n in range(8)}
    heard: dict[int, list[str]] = {}

    def one(n: int) -> None:
        heard[n] = [say(live, f"{letter}{n}", session=f"many-{n}")[0] for letter in "abc"]

    threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert heard == expected
