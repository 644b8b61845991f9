"""Sessions over HTTP: each answer is the one that a conversation in memory gives."""

from __future__ import annotations

import dataclasses
import threading

import openai
import pytest

from griffin.conversation import Conversation, fingerprint_of
from griffin.server import errors
from griffin.server.errors import ApiError
from griffin.sessions import Store
from tests.support.live_server import NAME, serving
from tests.support.session_talk import both, say, talk


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


@pytest.mark.thorough
def test_a_program_that_names_its_chats(live, llm):
    """open-webui sends everything each time, and a header. What the session knows spares reading
    where the answer's ids are those that its text is encoded to, and changes nothing."""
    spared = 0
    for seed in range(16):
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
    assert 0 < spared < 16


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


def test_a_cut_answer_is_known_to_be_one_and_goes_on(live, http):
    first, _ = say(live, "one", session="cut", temperature=0)
    system = {"role": "system", "content": "Be kind."}
    say(live, "two", session="cut", before=[system], temperature=0)
    shown = http.get("/v1/sessions/cut").json()
    turns = http.get("/v1/sessions/cut/turns").json()["data"]
    assert shown["system"] == "Be kind."
    assert {turn["finish_reason"] for turn in turns} == {"length"}
    # As the chat page does: all that was said, the cut answer last.
    said = [{"role": "user", "content": "one"}, {"role": "assistant", "content": first}]
    more = live.openai().chat.completions.create(
        model=NAME, messages=said, max_tokens=6, temperature=0, extra_body={"session_id": "go"}
    )
    say(live, "one", session="kept", temperature=0)
    again = live.openai().chat.completions.create(
        model=NAME, messages=said, max_tokens=6, temperature=0, extra_body={"session_id": "kept"}
    )
    assert again.choices[0].message.content == more.choices[0].message.content
    turns = http.get("/v1/sessions/kept/turns").json()["data"]
    assert [turn["current"] for turn in turns] == [False, True]
    assert turns[1]["text"] == f"> one\n\n{first}{again.choices[0].message.content}"


def test_sessions_are_found_by_words(live, http):
    say(live, "a word that is nowhere else: xylophone", session="found")
    listed = http.get("/v1/sessions", params={"search": "XYLOphone"}).json()
    assert [one["id"] for one in listed["data"]] == ["found"]
    assert http.get("/v1/sessions", params={"search": "x" * 201}).status_code == 400


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


@pytest.mark.thorough
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
